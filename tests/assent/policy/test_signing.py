# SPDX-License-Identifier: Apache-2.0
"""Only a signed policy opens, with every file it names, and never an older one."""

from __future__ import annotations

import datetime as dt
import hashlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent import cbor
from assent.cosekey import SealPrivateKey, SigningKey, file_thumbprint, thumbprint_text
from assent.envelope import sign_detached
from assent.errors import ConfigError, PolicyError, Severity
from assent.policy.signing import (
    PolicyFileError,
    PolicySerialError,
    PolicySignatureError,
    PolicyUnsignedError,
    SignedPolicy,
    fill_thumbprints,
    load_policy,
    open_policy,
    sign,
    verify,
)
from tests.assent.policy.drafts import BASE, TODAY, Edits, edited, pin

EXAMPLE = Path(__file__).resolve().parents[3] / "config" / "policy.toml"
OWN_KEY = (
    'function = "core"',
    f'function = "core"\nkey = {{ file = "keys/service.cose", {pin("G")} }}',
)

KEY, OTHER_KEY = SigningKey.generate(), SigningKey.generate()
SEALS = {
    "keys/maker.cose": SealPrivateKey.generate(),
    "keys/advice.cose": SealPrivateKey.generate(classical=True),
    "keys/service.cose": SealPrivateKey.generate(classical=True),
}
SIGNS = {name: SigningKey.generate() for name in ("keys/maker-sign.cose", "keys/advice-sign.cose")}
CA = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
FILES: dict[str, bytes] = {
    **{name: key.public.encode() for name, key in SEALS.items()},
    **{name: key.public.encode() for name, key in SIGNS.items()},
    "keys/maker-ca.pem": CA,
    "keys/advice-ca.pem": CA + CA,
}


def draft(*edits: tuple[str, str]) -> bytes:
    """The draft with its right thumbprints, then spoilt."""
    return edited(edits, fill_thumbprints(edited([OWN_KEY]), FILES)).encode()


def signed(data: bytes, previous_serial: int | None = None) -> bytes:
    return sign(data, KEY, FILES, TODAY, previous_serial)


def unsafe_signed(data: bytes) -> bytes:
    """A signature that `sign` would refuse to give."""
    return sign_detached(data, KEY, cbor.encode([1, "policy"]))


def reader(files: Mapping[str, bytes]) -> Callable[[str], bytes]:
    return files.__getitem__


def opened(
    data: bytes, signature: bytes, files: Mapping[str, bytes] = FILES, serial: int = 0
) -> SignedPolicy:
    return open_policy(data, signature, KEY.public, reader(files), serial)


def messages(
    data: bytes, files: Mapping[str, bytes] = FILES, previous_serial: int | None = None
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        sign(data, KEY, files, TODAY, previous_serial)
    return [str(finding) for finding in caught.value.findings]


def test_a_signed_policy_opens_with_its_keys() -> None:
    data = draft()
    policy = opened(data, signed(data))
    assert policy.policy == load_policy(data)
    assert (policy.serial, policy.hash) == (17, hashlib.sha256(data).digest())
    assert policy.keys == {
        "maker": SEALS["keys/maker.cose"].public,
        "advice": SEALS["keys/advice.cose"].public,
    }
    assert policy.ack_keys == {
        "maker": SIGNS["keys/maker-sign.cose"].public,
        "advice": SIGNS["keys/advice-sign.cose"].public,
    }
    assert policy.cas == {"maker": CA, "advice": CA + CA}


@pytest.mark.clause("C03")
def test_a_flow_with_a_key_of_its_own_is_sealed_to_it() -> None:
    data = draft()
    policy = opened(data, signed(data))
    assert policy.flow_keys == {"service": SEALS["keys/service.cose"].public}
    assert policy.seal_key("service") == SEALS["keys/service.cose"].public
    assert policy.seal_key("advice") == SEALS["keys/advice.cose"].public


def test_a_policy_without_a_signature_does_not_open() -> None:
    with pytest.raises(PolicyUnsignedError, match="got none"):
        opened(draft(), b"")


def test_a_policy_signed_by_another_does_not_open() -> None:
    data = draft()
    by_another = sign(data, OTHER_KEY, FILES, TODAY)
    with pytest.raises(PolicySignatureError, match="not by the trusted policy key"):
        opened(data, by_another)
    verify(data, by_another, OTHER_KEY.public)


@pytest.mark.parametrize(
    "aad",
    [[1, "admission"], [2, "policy"], [1, "policy", 0]],
    ids=["admission", "format", "longer"],
)
def test_a_signature_under_something_else_does_not_open_a_policy(aad: list[cbor.Encodable]) -> None:
    data = draft()
    with pytest.raises(PolicySignatureError):
        opened(data, sign_detached(data, KEY, cbor.encode(aad)))
    assert opened(data, sign_detached(data, KEY, cbor.encode([1, "policy"])))


def test_a_byte_changed_after_signing_does_not_open() -> None:
    data = draft()
    with pytest.raises(PolicySignatureError):
        opened(data + b" ", signed(data))
    with pytest.raises(PolicySignatureError):
        opened(data.replace(b"7d", b"9d"), signed(data))


SIGNATURE = signed(draft())


@settings(max_examples=60)
@given(st.one_of(st.binary(min_size=1, max_size=120), st.integers(0, 8 * len(SIGNATURE) - 1)))
def test_any_other_bytes_are_no_signature(made: bytes | int) -> None:
    if isinstance(made, int):
        spoilt = bytearray(SIGNATURE)
        spoilt[made // 8] ^= 1 << made % 8
        made = bytes(spoilt)
    with pytest.raises(PolicySignatureError):
        verify(draft(), made, KEY.public)


def test_the_signature_is_checked_before_the_policy_is_parsed() -> None:
    with pytest.raises(PolicyUnsignedError):
        opened(b"[[[", b"")
    with pytest.raises(PolicySignatureError):
        opened(b"[[[", SIGNATURE)
    with pytest.raises(ConfigError):
        opened(b"[[[", unsafe_signed(b"[[["))


def test_an_older_policy_does_not_open_again() -> None:
    data = draft()
    with pytest.raises(PolicySerialError, match="serial 18 or later, got 17"):
        opened(data, signed(data), serial=18)
    assert opened(data, signed(data), serial=17).serial == 17


def test_one_serial_never_names_two_policies() -> None:
    data, known = draft(), hashlib.sha256(draft()).digest()
    other = draft(("Advice on energy.", "Other words."))
    options = {"highest_serial": 17, "highest_hash": known}
    assert open_policy(data, signed(data), KEY.public, reader(FILES), **options).hash == known  # type: ignore[arg-type]
    with pytest.raises(PolicySerialError, match="another policy of serial 17"):
        open_policy(other, signed(other), KEY.public, reader(FILES), **options)  # type: ignore[arg-type]
    later = draft(("serial = 17", "serial = 18"))
    assert open_policy(later, signed(later), KEY.public, reader(FILES), **options).serial == 18  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_exchanged_does_not_open(name: str) -> None:
    data = draft()
    twin = {
        "key": SealPrivateKey.generate(classical=True).public.encode(),
        "sign": SigningKey.generate().public.encode(),
        "ca": CA + b"\n",
    }
    use = "ca" if name.endswith(".pem") else "sign" if "sign" in name else "key"
    with pytest.raises(PolicyFileError, match="expected the file with thumbprint") as caught:
        opened(data, signed(data), {**FILES, name: twin[use]})
    assert name in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_does_not_open(name: str, tmp_path: Path) -> None:
    data = draft()
    left = {key: value for key, value in FILES.items() if key != name}
    with pytest.raises(PolicyFileError, match=f"{name}: expected a readable file"):
        opened(data, signed(data), left)
    for key, value in left.items():
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).write_bytes(value)
    with pytest.raises(PolicyFileError, match=f"{name}: expected a readable file"):
        open_policy(data, signed(data), KEY.public, lambda key: (tmp_path / key).read_bytes(), 0)


def wrongly_used(use: str, name: str) -> tuple[bytes, dict[str, bytes]]:
    """A policy, rightly pinned, whose file holds a key of another use."""
    pem = b"no certificate"
    strange = {"key": FILES["keys/maker-sign.cose"], "ack_key": FILES["keys/service.cose"]}
    files = {**FILES, name: strange.get(use, pem)}
    edits = [("keys/service.cose", "keys/other.cose"), ("keys/maker-sign.cose", "keys/x.cose")]
    files |= {"keys/other.cose": SealPrivateKey.generate(classical=True).public.encode()}
    files |= {"keys/x.cose": SigningKey.generate().public.encode()}
    if use == "ack_key":
        edits = edits[:1]
    return fill_thumbprints(edited(edits, edited([OWN_KEY])), files).encode(), files


@pytest.mark.parametrize(
    ("use", "name", "expected"),
    [
        ("key", "keys/maker.cose", "a public key to seal to"),
        ("ack_key", "keys/maker-sign.cose", "an Ed25519 public key"),
        ("ca", "keys/maker-ca.pem", "certificates in PEM"),
    ],
)
def test_a_file_of_another_use_does_not_open_though_rightly_pinned(
    use: str, name: str, expected: str
) -> None:
    data, files = wrongly_used(use, name)
    with pytest.raises(PolicyFileError, match=expected):
        opened(data, unsafe_signed(data), files)
    assert any(expected in message for message in messages(data, files))


def test_a_policy_with_an_error_does_not_open_though_signed() -> None:
    data = draft(("mqtts://ingest", "mqtt://ingest"))
    with pytest.raises(ConfigError, match="broker-is-encrypted"):
        opened(data, unsafe_signed(data))


def test_a_policy_with_a_warning_or_an_overdue_review_goes_on_opening() -> None:
    data = draft(('unit = "W"', 'unit = "Watts"'), ("review = 2027-11-30", "review = 2001-01-01"))
    assert opened(data, unsafe_signed(data)).serial == 17
    assert messages(data)


def test_each_reason_has_a_class_and_a_code_of_its_own() -> None:
    reasons = (PolicyUnsignedError, PolicySignatureError, PolicySerialError, PolicyFileError)
    assert len({reason.code for reason in reasons}) == 4
    assert all(issubclass(reason, PolicyError) for reason in reasons)


def test_a_policy_that_nothing_is_wrong_with_is_signed() -> None:
    for signature in (signed(draft()), signed(draft(), previous_serial=16)):
        assert opened(draft(), signature).serial == 17


REFUSED: dict[str, tuple[Edits, str]] = {
    "an error": ([("mqtts://ingest", "mqtt://ingest")], "[broker-is-encrypted]"),
    "a warning": ([('unit = "W"', 'unit = "Watts"')], "[unit-is-known]"),
    "an overdue review": (
        [("review = 2027-11-30", "review = 2026-11-21")],
        "[review-is-due-later]",
    ),
    "an end that has passed": (
        [("serial = 17", "serial = 17\nnot_after = 2026-11-21")],
        "[policy-is-not-over]",
    ),
}


@pytest.mark.parametrize(("edits", "name"), REFUSED.values(), ids=REFUSED.keys())
def test_what_has_something_wrong_is_not_signed(edits: Edits, name: str) -> None:
    (message,) = messages(draft(*edits))
    assert name in message
    assert message.startswith("policy.toml:")


def test_a_day_later_the_review_is_overdue_and_nothing_is_signed() -> None:
    sign(draft(), KEY, FILES, dt.date(2027, 11, 30))
    with pytest.raises(ConfigError, match="overdue") as caught:
        sign(draft(), KEY, FILES, dt.date(2027, 12, 1))
    assert {one.severity for one in caught.value.findings} == {Severity.WARNING}


@pytest.mark.parametrize("previous", [17, 18])
def test_a_serial_that_does_not_rise_is_not_signed(previous: int) -> None:
    (message,) = messages(draft(), previous_serial=previous)
    assert message.startswith(f"policy.toml:4:1: expected a serial over {previous}")


def test_a_thumbprint_that_does_not_fit_is_not_signed_and_is_named_at_its_line() -> None:
    right = thumbprint_text(file_thumbprint("keys/maker.cose", FILES["keys/maker.cose"]))
    (message,) = messages(draft((right, "sha-256:" + "x" * 43)))
    assert message.startswith("policy.toml:10:")
    assert message.endswith(f"got {right}")


def test_a_file_that_is_not_given_is_not_signed() -> None:
    left = {key: value for key, value in FILES.items() if key != "keys/advice-ca.pem"}
    (message,) = messages(draft(), left)
    assert "expected the file 'keys/advice-ca.pem', got none" in message


def test_everything_wrong_is_said_at_once() -> None:
    wrong = [('unit = "W"', 'unit = "Watts"'), ("mqtts://ingest", "mqtt://ingest")]
    assert len(messages(edited(wrong).encode(), FILES, 17)) == 2 + len(FILES) - 1 + 1


def test_the_same_policy_signed_twice_has_the_same_signature() -> None:
    assert signed(draft()) == signed(draft())  # EdDSA is deterministic, RFC 8032 §5.1.6


def test_a_policy_is_loaded_signed_or_not() -> None:
    assert load_policy(BASE.encode()).policy.serial == 17
    with pytest.raises(ConfigError, match=r"p\.toml:12:12: .*mqtts"):
        load_policy(edited([("mqtts://ingest", "mqtt://ingest")]).encode(), "p.toml")


@settings(max_examples=80)
@given(st.data())
def test_whatever_is_changed_in_a_policy_it_loads_or_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(BASE)))
    inserted = data.draw(st.text("=[]{}\".,\n\\'#a1-é\x00", max_size=4))
    text = BASE[:at] + inserted + BASE[at + data.draw(st.integers(0, 8)) :]
    try:
        load_policy(text.encode())
    except ConfigError as exc:
        findings = exc.findings
    else:
        return
    assert all(finding.severity is Severity.ERROR for finding in findings)


def test_thumbprints_are_filled_in_and_nothing_else_changes() -> None:
    text = edited([OWN_KEY])
    filled = fill_thumbprints(text, FILES)
    before, after = text.split("\n"), filled.split("\n")
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == len(FILES)
    for line in changed:
        value = tomllib.loads(line)
        (ref,) = value.values()
        data = FILES[ref["file"]]
        assert ref["thumbprint"] == thumbprint_text(file_thumbprint(ref["file"], data))
    assert fill_thumbprints(filled, FILES) == filled


def test_every_way_of_writing_a_pin_is_filled_in() -> None:
    text = (
        '# thumbprint = "stays"\n'
        "[a]\n"
        'file = "keys/maker-ca.pem"\n'
        "thumbprint = 'old'   # why\n"
        "[b]\n"
        'thumbprint="old"\n'
        'file="keys/maker-ca.pem"\n'
        "[c]\n"
        'k = { thumbprint = "", file = "keys/maker-ca.pem" }\n'
        'k2."thumbprint" = "old"\n'
        'k2.file = "keys/maker-ca.pem"\n'
        'unknown = { file = "keys/none.pem", thumbprint = "stays" }\n'
        'alone = { thumbprint = "stays" }\n'
        "note = '''thumbprint = \"stays\" file = \"keys/maker-ca.pem\"'''\n"
    )
    right = thumbprint_text(hashlib.sha256(CA).digest())
    filled = fill_thumbprints(text, FILES)
    assert filled.count(right) == 4
    assert filled.count("stays") == 4
    assert "old" not in filled
    lengths = [len(line) for line in text.split("\n")]
    assert [len(line.replace(right, "")) for line in filled.split("\n")] == [
        length - 3 * ("old" in line) for length, line in zip(lengths, text.split("\n"), strict=True)
    ]


def test_lines_ends_of_another_system_stay() -> None:
    text = edited([OWN_KEY]).replace("\n", "\r\n")
    assert fill_thumbprints(text, FILES) == fill_thumbprints(edited([OWN_KEY]), FILES).replace(
        "\n", "\r\n"
    )


def test_a_text_that_is_no_toml_is_not_filled_in() -> None:
    with pytest.raises(ConfigError):
        fill_thumbprints("[[[", FILES)


def test_the_example_is_signed_once_its_thumbprints_are_filled_in() -> None:
    example = EXAMPLE.read_text()
    refs = [
        one for table in tomllib.loads(example)["recipients"].values() for one in table.values()
    ]
    names = [ref["file"] for ref in refs if isinstance(ref, dict)]
    files = {}
    for name in names:
        if name.endswith(".pem"):
            files[name] = CA
        elif "sign" in name:
            files[name] = SigningKey.generate().public.encode()
        else:
            files[name] = SealPrivateKey.generate(classical=True).public.encode()
    with pytest.raises(ConfigError, match="thumbprint"):
        sign(example.encode(), KEY, files, TODAY)
    data = fill_thumbprints(example, files).encode()
    policy = open_policy(data, sign(data, KEY, files, TODAY), KEY.public, reader(files), 0)
    assert policy.keys.keys() == {"maker", "energy-advice"}
