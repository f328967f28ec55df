# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from assent.backend import adoption, directory, publishing
from assent.backend.directory import Directory
from assent.cosekey import SealPrivateKey
from assent.errors import AssentError, RefusedError
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
