# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from assent.backend import adoption, directory, publishing
from assent.backend.cli import main
from assent.backend.directory import Directory
from assent.cosekey import SealPrivateKey
from assent.enrolment import Bundle, decode_bundle, encode_bundle
from assent.errors import AssentError, RefusedError
from assent.wire import MAX_SENT_BUNDLE
from tests.backend.parts import NOW, POLICY


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Directory]:
    return {
        name: directory.create(tmp_path / name, name, policy_key=True, now=NOW)
        for name in ("maker", "advice")
    }


@pytest.fixture
def bundled(tmp_path: Path, made: dict[str, Directory]) -> Path:
    policy, key = tmp_path / "policy.toml", made["maker"].key("policy.key.cose")
    policy.write_text(POLICY)
    publishing.sign_policy(policy, key, tmp_path, NOW.date())
    path = tmp_path / "maker.bundle"
    public = made["maker"].key("policy.pub.cose")
    path.write_bytes(publishing.bundle(tmp_path / "policy.toml", public, tmp_path))
    return path


def test_a_published_bundle_is_verified_by_the_key_it_brings(
    bundled: Path, made: dict[str, Directory]
) -> None:
    made["advice"].key("policy.pub.cose").unlink()
    told = adoption.publish(bundled, [made["maker"], made["advice"]])
    assert told.signed.serial == 17
    for one in made.values():
        (path,) = one.root.glob("policies/*.toml")
        assert path.name == "example-appliances-17.toml"
        assert path in told.written
        assert one.published().troubles == ()
        assert one.published().offers
        sendable = one.published().newest["example-appliances"]
        assert (sendable.serial, sendable.bundle) == (17, bundled.read_bytes())
    assert told.too_long == 0
    # Once more is no change.
    assert adoption.publish(bundled, list(made.values())).written == ()


def test_a_bundle_under_another_key_publishes_nothing_anywhere(
    bundled: Path, made: dict[str, Directory]
) -> None:
    with pytest.raises(RefusedError, match="trusts another policy key"):
        adoption.publish(bundled, [made["maker"], made["advice"]])
    assert list(made["maker"].root.glob("policies/*")) == []


def test_a_bundle_that_seals_to_a_key_which_is_not_there_is_refused(
    bundled: Path, made: dict[str, Directory]
) -> None:
    other = SealPrivateKey.generate(classical=True).encode()
    made["maker"].key("seal.key.cose").write_bytes(other)
    with pytest.raises(RefusedError, match="seals to a key that is not in"):
        adoption.publish(bundled, [made["maker"]])


def test_a_bundle_for_others_is_refused(bundled: Path, tmp_path: Path) -> None:
    other = directory.create(tmp_path / "other", "other", now=NOW)
    with pytest.raises(RefusedError, match="has no recipient other"):
        adoption.publish(bundled, [other])


def test_another_policy_of_a_published_serial_is_refused(
    bundled: Path, made: dict[str, Directory]
) -> None:
    maker = made["maker"]
    (maker.root / "policies" / "example-appliances-17.toml").write_text("other")
    with pytest.raises(RefusedError, match=r"serial 17 .* with other bytes"):
        adoption.publish(bundled, [maker])


@pytest.mark.parametrize("name", ["policy.toml", "policy.toml.cose"])
def test_a_file_that_is_no_bundle_publishes_nothing(
    bundled: Path, made: dict[str, Directory], name: str
) -> None:
    path = bundled.with_name(name)
    with pytest.raises(AssentError, match=f"{path} is no bundle"):
        adoption.publish(path, [made["maker"]])


def test_a_bundle_that_is_too_long_for_a_message_is_published_and_said_so(
    bundled: Path, made: dict[str, Directory], capsys: pytest.CaptureFixture[str]
) -> None:
    maker = str(made["maker"].root)
    assert main(["publish", str(bundled), maker]) == 0
    assert "too long" not in capsys.readouterr().err
    shutil.rmtree(made["maker"].root / "policies")
    brought = decode_bundle(bundled.read_bytes())
    more = {f"keys/more-{n}.pem": bytes(60_000) for n in range(2)}
    brought = Bundle(brought.policy, brought.signature, brought.policy_key, brought.files | more)
    bundled.write_bytes(encode_bundle(brought))
    told = adoption.publish(bundled, [made["maker"]])
    assert main(["publish", str(bundled), maker]) == 0
    said = f"the bundle is {told.too_long} bytes too long to be sent"
    assert said in capsys.readouterr().err
    assert told.too_long == bundled.stat().st_size - MAX_SENT_BUNDLE > 0
    found = made["maker"].published()
    assert found.offers
    assert found.newest == {}


@pytest.mark.parametrize("spoilt", [b"", b"\xff" * 80, None], ids=["empty", "garbage", "another"])
def test_a_bundle_that_is_not_of_its_policy_is_not_sent_and_its_terms_stay_published(
    bundled: Path, made: dict[str, Directory], spoilt: bytes | None
) -> None:
    maker = made["maker"]
    adoption.publish(bundled, [maker])
    (path,) = maker.root.glob("policies/*.bundle")
    if spoilt is None:
        brought = decode_bundle(bundled.read_bytes())
        other = Bundle(b"#", brought.signature, brought.policy_key, brought.files)
        spoilt = encode_bundle(other)
    path.write_bytes(spoilt)
    found = maker.published()
    assert found.newest == {}
    assert found.troubles == ()
    assert found.offers
    # The twin: publishing it again mends it.
    assert adoption.publish(bundled, [maker]).written == (path,)
    assert maker.published().newest.keys() == {"example-appliances"}


def test_of_two_published_policies_the_newer_is_the_one_to_send(
    bundled: Path, made: dict[str, Directory], tmp_path: Path
) -> None:
    maker = made["maker"]
    adoption.publish(bundled, [maker])
    later = tmp_path / "later.toml"
    # Its file comes first in the folder: the serial counts, not the name.
    later.write_text(POLICY.replace("serial = 17", "serial = 100"))
    publishing.sign_policy(later, maker.key("policy.key.cose"), tmp_path, NOW.date())
    path = tmp_path / "later.bundle"
    path.write_bytes(publishing.bundle(later, maker.key("policy.pub.cose"), tmp_path))
    adoption.publish(path, [maker])
    assert maker.published().newest["example-appliances"].serial == 100
