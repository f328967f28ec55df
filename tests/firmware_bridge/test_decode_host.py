# SPDX-License-Identifier: Apache-2.0
"""What a host's files say, against files of real machines; odd ones give nothing."""

from __future__ import annotations

import json
import lzma
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firmware_bridge.decode import host

DECODERS: tuple[Callable[[bytes], object], ...] = (
    host.cpu_info,
    host.device_tree_text,
    host.interface_index,
    host.is_processor_zone,
    host.is_throttled,
    host.kernel_release,
    host.language,
    host.machine_id,
    host.os_release,
    host.temperature_celsius,
    host.uptime_seconds,
    lambda data: host.mac_address(data, data),
    lambda data: host.mac_address(data, None),
    lambda data: host.serial_number(data.decode("latin-1")),
    lambda data: host.model_of(host.cpu_info(data)),
    lambda data: host.os_name(host.os_release(data)),
)


def lines_of(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = lzma.decompress(data) if path.suffix == ".xz" else data
    return [json.loads(line) for line in text.splitlines()]


def test_every_cpuinfo_tells_what_its_machine_is(shared_data: Path) -> None:
    rows = lines_of(shared_data / "host/cpuinfo_dev.jsonl")
    told = set()
    for row in rows:
        info = host.cpu_info(row["text"].encode())
        expected = row["expect"]
        for key in ("cores", "revision", "model", "hardware", "serial"):
            if key in expected:
                assert getattr(info, key) == expected[key], (row["name"], key)
                told.add(key)
        if "n" in expected:
            assert info.cores == expected["n"][0], row["name"]
    assert len(rows) == 13
    assert told == {"cores", "revision", "model", "hardware", "serial"}


def test_the_other_cpuinfo_files_have_the_processors_they_list(shared_data: Path) -> None:
    rows = {row["name"]: row for row in lines_of(shared_data / "host/jc_fixtures_dev.jsonl.xz")}
    for name in ("linux-proc/cpuinfo", "linux-proc/cpuinfo2"):
        info = host.cpu_info(rows[name]["text"].encode())
        assert info.cores == len(rows[name]["expect"])
        assert (info.model, info.serial, info.revision) == (None, None, None)


def test_uptime_and_kernel_are_read_as_others_read_them(shared_data: Path) -> None:
    rows = {row["name"]: row for row in lines_of(shared_data / "host/jc_fixtures_dev.jsonl.xz")}
    uptime = rows["linux-proc/uptime"]
    assert host.uptime_seconds(uptime["text"].encode()) == uptime["expect"]["up_time"]
    for name in ("linux-proc/version", "linux-proc/version2", "linux-proc/version3"):
        expected = rows[name]["expect"]["version"]
        assert host.kernel_release(rows[name]["text"].encode()) == expected


def read_as_a_shell(content: str) -> dict[str, str]:
    found = {}
    for line in content.splitlines():
        words = shlex.split(line, comments=True)
        if words and "=" in words[0]:
            key, _, value = words[0].partition("=")
            found[key] = value
    return found


def test_every_os_release_names_its_system(shared_data: Path) -> None:
    rows = lines_of(shared_data / "host/os_release_dev.jsonl.xz")
    without_version = 0
    for row in rows:
        shell = read_as_a_shell(row["content"])
        release = host.os_release(row["content"].encode())
        assert release.id == shell["ID"], row["name"]
        assert release.version_id == shell.get("VERSION_ID"), row["name"]
        without_version += release.version_id is None
        expected = shell["ID"] + (f" {shell['VERSION_ID']}" if "VERSION_ID" in shell else "")
        assert host.os_name(release) == expected
    assert len(rows) == 115
    assert without_version >= 3


def test_no_file_of_another_kind_upsets_a_decoder(shared_data: Path) -> None:
    texts = [row["text"] for row in lines_of(shared_data / "host/jc_fixtures_dev.jsonl.xz")]
    texts += [row["text"] for row in lines_of(shared_data / "host/cpuinfo_dev.jsonl")]
    texts += [row["content"] for row in lines_of(shared_data / "host/os_release_dev.jsonl.xz")]
    for text in texts:
        for decode in DECODERS:
            decode(text.encode())
            decode(text.encode()[: len(text) // 2])
    assert len(texts) == 179


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@example(b"LANG=en_GB.UTF-8\xff")
@example(b"ID=\xed\xa0\x80\nSerial\t: \x00\x00\x00\x00")
@example(b"\x00")
@example(b"9" * 65_536)
@example(b'ID="' + b"\\" * 65_000)
def test_whatever_the_bytes_a_decoder_gives_a_value_or_nothing(data: bytes) -> None:
    for decode in DECODERS:
        value = decode(data)
        if isinstance(value, str):
            assert value.isprintable()
            assert len(value) <= 200
        else:
            assert value is None or isinstance(value, int | float | host.CpuInfo | host.OsRelease)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LANG=en_GB.UTF-8\n", "en-GB"),
        ('# locale\nLANG="zh_CN.UTF-8"\nLC_TIME=de_DE.UTF-8\n', "zh-CN"),
        ("LANG=eo\n", "eo"),
        ("LANG=sr_RS@latin\n", "sr-RS"),
        ("LANG=C.UTF-8\n", None),
        ("LANG=POSIX\n", None),
        ("LANG=\n", None),
        ("LC_ALL=en_GB\n", None),
        ("LANG=$HOME\n", None),
        ("LANG='unfinished\n", None),
    ],
    ids=[
        "a language of a country",
        "quoted, beside others",
        "a language of no country",
        "a script is left out",
        "C is no language",
        "POSIX is no language",
        "empty",
        "another variable",
        "an expansion is not expanded",
        "a quote that never ends",
    ],
)
@pytest.mark.clause("C07")
def test_the_language_is_a_tag(text: str, expected: str | None) -> None:
    assert host.language(text.encode()) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ID=debian # trixie", "debian"),
        ("  ID='a.b-c_d'  ", "a.b-c_d"),
        ('ID="esc\\"aped"', None),
        ("ID=two words", None),
        ("ID=", None),
        ('ID="open', None),
        ("ID=$(reboot)", None),
        ("#ID=debian", None),
        ("export ID=debian", None),
        ("ID=first\nID=last", "last"),
    ],
)
def test_odd_quoting_gives_the_value_or_nothing(line: str, expected: str | None) -> None:
    assert host.os_release(line.encode()).id == expected


@pytest.mark.parametrize(
    ("address", "assigned", "expected"),
    [
        (b"00:00:5e:00:53:01\n", b"0\n", "00:00:5e:00:53:01"),
        (b"00:00:5E:00:53:AF\n", None, "00:00:5e:00:53:af"),
        (b"00:00:5e:00:53:01\n", b"1\n", None),
        (b"00:00:5e:00:53:01\n", b"3\n", None),
        (b"00:00:00:00:00:00\n", b"0\n", None),
        (b"ff:ff:ff:ff:ff:ff\n", b"0\n", None),
        (b"01:00:5e:00:53:01\n", b"0\n", None),
        (b"00:00:5e:00:53\n", b"0\n", None),
        (b"00:00:48:31:fe:80:00:00:00:00:00:00:00:02:c9:03:00:00:00:01\n", b"0\n", None),
        (b"", b"0\n", None),
    ],
    ids=[
        "a permanent address",
        "a kernel that does not say how it was assigned",
        "a random one",
        "one set by hand",
        "all zero",
        "broadcast",
        "a group address",
        "too short",
        "an InfiniBand address",
        "nothing",
    ],
)
def test_only_the_hardwares_own_address_counts(
    address: bytes, assigned: bytes | None, expected: str | None
) -> None:
    assert host.mac_address(address, assigned) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0\n", False),
        ("50000\n", False),
        ("50005\n", True),
        ("80008\n", True),
        ("throttled=0x2\n", True),
        ("throttled=0x1\n", False),
        ("0x4", True),
        ("error=1", None),
        ("", None),
        ("123456789", None),
    ],
    ids=[
        "all is well",
        "it was throttled once",
        "throttled now",
        "the soft temperature limit holds",
        "the frequency is capped",
        "under-voltage alone slows nothing",
        "bare",
        "not a reading",
        "empty",
        "too long",
    ],
)
def test_throttled_means_held_back_now(text: str, expected: bool | None) -> None:
    assert host.is_throttled(text.encode()) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48312\n", 48.312),
        ("-5000\n", -5.0),
        ("0\n", 0.0),
        ("-274000\n", None),
        ("255000\n", None),
        ("48.3\n", None),
        ("", None),
    ],
)
def test_a_temperature_is_possible_or_left_out(text: str, expected: float | None) -> None:
    assert host.temperature_celsius(text.encode()) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cpu-thermal", True),
        ("cpu_thermal", True),
        ("cpu0-thermal", True),
        ("soc-thermal", True),
        ("CPU-therm", True),
        ("x86_pkg_temp", True),
        ("bcm2835_thermal", True),
        ("acpitz", False),
        ("iwlwifi_1", False),
        ("gpu-thermal", False),
        ("rp1_adc", False),
        ("", False),
    ],
)
def test_the_processors_zone_is_told_from_others(name: str, expected: bool) -> None:
    assert host.is_processor_zone(name.encode() + b"\n") is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10000000TEST57ff", "10000000TEST57ff"),
        ("0000000000000000", None),
        ("ffffffff", None),
        ("abc", None),
        ("To be filled by O.E.M.", None),
        (None, None),
    ],
    ids=["a serial", "all zero", "all ones", "too short", "a placeholder in words", "none"],
)
def test_a_placeholder_is_no_serial(text: str | None, expected: str | None) -> None:
    assert host.serial_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0123456789abcdef0123456789abcdef\n", "0123456789abcdef0123456789abcdef"),
        ("uninitialized\n", None),
        ("0" * 32, None),
        ("0123456789ABCDEF0123456789ABCDEF\n", None),
        ("", None),
    ],
)
def test_a_machine_id_is_one_or_none(text: str, expected: str | None) -> None:
    assert host.machine_id(text.encode()) == expected


def test_a_device_tree_string_ends_at_its_nul() -> None:
    assert host.device_tree_text(b"Raspberry Pi 5 Model B Rev 1.0\0") == (
        "Raspberry Pi 5 Model B Rev 1.0"
    )
    assert host.device_tree_text(b"\0Raspberry") is None
    assert host.device_tree_text(b"x" * 200) is None


def test_a_revision_counts_on_a_raspberry_only() -> None:
    raspberry = b"Hardware\t: BCM2835\nRevision\t: c03111\n"
    assert host.model_of(host.cpu_info(raspberry)) == "Raspberry Pi 4 Model B Rev 1.1"
    other = b"Hardware\t: sun8i\nRevision\t: 0010\n"
    assert host.model_of(host.cpu_info(other)) is None


def test_who_built_the_kernel_stays_in_the_file() -> None:
    text = b"Linux version 6.1.0-rpi7 (builder@host.example.com) (gcc 12) #1 SMP\n"
    assert host.kernel_release(text) == "6.1.0-rpi7"
