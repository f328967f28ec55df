# SPDX-License-Identifier: Apache-2.0
"""The wrapping key as a credential of the unit; what a kill at any step leaves; what copies open."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from agent.journal import Head, Journal, News
from agent.keys import Keys
from agent.keys.credential import NAME
from assent import cbor
from assent.cosekey import SigningKey
from assent.errors import KeyStoreError
from tests.agent.test_keys import certify, matches

REPO = Path(__file__).resolve().parents[2]
FLOW = "flows/maker/service.key"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "keys"


class Manager:
    """What the service manager does for a unit: a private directory with a file in it."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        directory.mkdir(mode=0o700)
        self._patch = patch
        self.directory = directory
        self.path = directory / NAME

    def hands(self, data: bytes, mode: int = 0o400) -> None:
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(data)
        self.path.chmod(mode)
        self._patch.setenv("CREDENTIALS_DIRECTORY", str(self.directory))

    def hands_nothing(self) -> None:
        self._patch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    one = Manager(tmp_path / "credentials", monkeypatch)
    one.hands_nothing()
    return one


CREDENTIAL = bytes(range(32))


def filled(place: Path) -> Keys:
    keys = Keys.open(place)
    keys.flow_secret("maker", "service")
    keys.flow_secret("maker", "diagnosis")
    keys.gateway("maker")
    keys.trust_policy_key(SigningKey.generate().public)
    return keys


def held(keys: Keys) -> list[object]:
    """Every secret but that of the flow that is destroyed."""
    gateway = keys.gateway("maker")
    return [
        keys.ledger_key.encode(),
        keys.policy_key,
        keys.flow_secret("maker", "diagnosis"),
        gateway.mailbox,
        gateway.sign.encode(),
        gateway.seal.encode(),
        keys.journal_key(),
    ]


def files(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


def keys_that_open(wrapped: bytes, name: str, among: bytes) -> int:
    """How many of all the 32 bytes that stand somewhere open a wrapped file."""
    bound = cbor.encode([1, name.removesuffix(".key")])
    count = 0
    for at in range(len(among) - 31):
        try:
            ChaCha20Poly1305(among[at : at + 32]).decrypt(wrapped[1:13], wrapped[13:], bound)
        except InvalidTag:
            continue
        count += 1
    return count


# The credential.


@pytest.mark.clause("C21")
def test_with_a_credential_the_files_alone_open_nothing(place: Path, manager: Manager) -> None:
    manager.hands(CREDENTIAL)
    filled(place)
    among = b"".join(files(place).values())
    assert keys_that_open((place / FLOW).read_bytes(), FLOW, among) == 0


def test_without_a_credential_the_files_alone_open_everything(place: Path) -> None:
    """The twin: what the documents say of a board without a TPM, and that the search can find."""
    filled(place)
    among = b"".join(files(place).values())
    assert keys_that_open((place / FLOW).read_bytes(), FLOW, among) == 1


def test_every_secret_is_the_same_after_a_restart_with_the_credential(
    place: Path, manager: Manager
) -> None:
    manager.hands(CREDENTIAL)
    before = held(filled(place))
    assert held(Keys.open(place)) == before


@pytest.mark.parametrize("handed", ["a directory without it", "nothing", "another one"])
def test_a_store_shut_under_a_credential_opens_with_no_other_and_makes_nothing_anew(
    place: Path, manager: Manager, handed: str
) -> None:
    manager.hands(CREDENTIAL)
    kept = held(filled(place))
    before = files(place)
    if handed == "another one":
        manager.hands(bytes(32))
    elif handed == "nothing":
        manager.hands_nothing()
    else:
        manager.path.unlink()
    said = "is another than" if handed == "another one" else "which is not here"
    with pytest.raises(KeyStoreError, match=said) as caught:
        Keys.open(place)
    assert NAME in caught.value.message
    assert caught.value.hint
    assert files(place) == before
    manager.hands(CREDENTIAL)
    assert held(Keys.open(place)) == kept


@pytest.mark.parametrize("where", ["under a credential", "in a file"])
def test_the_journal_opens_with_the_credential_alone(
    place: Path, manager: Manager, tmp_path: Path, where: str
) -> None:
    """And without one, the twin, with the files: what the documents say of a board without a TPM."""
    if where == "under a credential":
        manager.hands(CREDENTIAL)
    keys = Keys.open(place)
    path = tmp_path / "journal"
    head = Head("service", 7, 0, 0, "", bytes(32))
    Journal(path, keys.journal_key, bytes(16)).commit([News(7, 0, 0, head)])
    among = files(place)
    opened = keys_that_open(among["journal.key"], "journal.key", b"".join(among.values()))
    assert opened == (where == "in a file")
    assert not any(keys.journal_key() in data for data in among.values())
    for wrong in (bytes(32), CREDENTIAL):
        journal = Journal(path, lambda wrong=wrong: wrong, bytes(16))
        assert (journal.parts(), journal.damaged_ms is not None) == ([], True)
    if where == "under a credential":
        manager.hands_nothing()
        with pytest.raises(KeyStoreError, match="which is not here"):
            Keys.open(place)
        manager.hands(CREDENTIAL)
    (part,) = Journal(path, Keys.open(place).journal_key, bytes(16)).parts()
    assert part.head == head


def test_a_store_that_is_lost_beside_its_credential_stays_shut(
    place: Path, manager: Manager
) -> None:
    manager.hands(CREDENTIAL)
    filled(place)
    (place / "wrapping.key").unlink()
    before = files(place)
    with pytest.raises(KeyStoreError, match="the wrapping key is lost"):
        Keys.open(place)
    assert files(place) == before


@pytest.mark.parametrize(
    ("data", "mode", "said"),
    [
        (b"", 0o400, "got 0"),
        (bytes(31), 0o400, "got 31"),
        (bytes(33), 0o400, "got 33"),
        (b"00" * 32, 0o400, "got 64"),
        (CREDENTIAL, 0o440, "mode 0440"),
        (CREDENTIAL, 0o404, "mode 0404"),
        (CREDENTIAL, 0o620, "mode 0620"),
    ],
    ids=[
        "empty",
        "a byte short",
        "with a line end",
        "in hexadecimal",
        "for the group",
        "for everyone",
        "the group writes it",
    ],
)
@pytest.mark.parametrize("exists", [True, False], ids=["a store of files", "no store yet"])
def test_a_credential_is_not_used_that_is(
    place: Path, manager: Manager, data: bytes, mode: int, said: str, exists: bool
) -> None:
    if exists:
        filled(place)
    before = files(place)
    manager.hands(data, mode)
    with pytest.raises(KeyStoreError, match=said) as caught:
        Keys.open(place)
    assert caught.value.hint
    assert files(place) == before


def test_a_credential_that_is_no_file_is_not_used(place: Path, manager: Manager) -> None:
    manager.hands(CREDENTIAL)
    manager.path.unlink()
    os.mkfifo(manager.path, 0o400)
    with pytest.raises(KeyStoreError, match="not a regular file"):
        Keys.open(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_credential_of_another_user_is_not_used(place: Path, manager: Manager) -> None:
    manager.hands(CREDENTIAL)
    os.chown(manager.path, 65_534, 65_534)
    with pytest.raises(KeyStoreError, match="another user"):
        Keys.open(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize(
    ("mode", "opens"), [(0o440, True), (0o444, False)], ids=["access list", "everyone"]
)
def test_a_file_of_roots_may_carry_an_access_list_for_us(
    tmp_path: Path, mode: int, opens: bool
) -> None:
    """As systemd hands it over; the group's bits are the mask of the list (acl(5))."""
    tmp_path.chmod(0o711)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    place = tmp_path / "keys"
    place.mkdir(mode=0o710)
    os.chown(place, 65_534, 65_534)
    credentials = tmp_path / "credentials"
    credentials.mkdir(mode=0o711)
    (credentials / NAME).write_bytes(CREDENTIAL)
    os.chown(credentials / NAME, 0, 65_534)
    (credentials / NAME).chmod(mode)
    code = f"""\
import os, pathlib
os.environ["CREDENTIALS_DIRECTORY"] = {str(credentials)!r}
from agent.keys import Keys
from assent.errors import KeyStoreError
os.setgid(65534), os.setuid(65534)
try:
    Keys.open(pathlib.Path({str(place)!r}))
except KeyStoreError as exc:
    print(exc.message)
else:
    print("opens")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout == (
        "opens\n" if opens else f"the credential {NAME} has mode 0444, which lets others at it\n"
    ), done.stderr


# The way from a file to the credential.


@pytest.mark.clause("C21")
def test_a_store_made_with_a_file_moves_to_the_credential_and_keeps_every_secret(
    place: Path, manager: Manager
) -> None:
    before = held(filled(place))
    manager.hands(CREDENTIAL)
    assert held(Keys.open(place)) == before
    assert held(Keys.open(place)) == before
    manager.hands_nothing()
    with pytest.raises(KeyStoreError, match="which is not here"):
        Keys.open(place)


def test_a_copy_of_the_file_key_opens_nothing_after_the_move(place: Path, manager: Manager) -> None:
    filled(place)
    copied = (place / "wrapping.key").read_bytes()
    assert keys_that_open((place / FLOW).read_bytes(), FLOW, copied) == 1
    manager.hands(CREDENTIAL)
    Keys.open(place)
    assert keys_that_open((place / FLOW).read_bytes(), FLOW, copied) == 0
    assert copied not in b"".join(files(place).values())


def test_a_file_key_put_back_does_not_take_the_place_of_the_right_one(
    place: Path, manager: Manager
) -> None:
    filled(place)
    old = (place / "wrapping.key").read_bytes()
    manager.hands(CREDENTIAL)
    before = held(Keys.open(place))
    right = (place / "wrapping.key").read_bytes()
    (place / "wrapping.key").write_bytes(old)
    found = files(place)
    with pytest.raises(KeyStoreError, match="opens none of the secrets"):
        Keys.open(place)
    assert files(place) == found
    (place / "wrapping.key").write_bytes(right)
    assert held(Keys.open(place)) == before


# What copies open after a secret was destroyed.


@pytest.mark.clause("C26")
@pytest.mark.parametrize("credential", [None, CREDENTIAL], ids=["file", "credential"])
def test_no_copy_of_a_destroyed_secret_opens_with_anything_the_gateway_still_has(
    place: Path, tmp_path: Path, manager: Manager, credential: bytes | None
) -> None:
    if credential:
        manager.hands(credential)
    keys = filled(place)
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    root = (copy / "wrapping.key").read_bytes()
    (copy / "wrapping.key").unlink()
    (copy / "flows/maker/.tmp-0123456789abcdef").write_bytes((place / FLOW).read_bytes())
    # The twin: before the destruction the copy is as good as the store.
    secret = keys.flow_secret("maker", "service")
    shutil.copytree(copy, place, dirs_exist_ok=True)
    assert Keys.open(place).flow_secret("maker", "service") == secret
    keys.destroy_flow_secret("maker", "service")
    among = b"".join(files(place).values()) + b"".join(files(copy).values()) + CREDENTIAL
    destroyed = (copy / FLOW).read_bytes()
    assert keys_that_open(destroyed, FLOW, among) == 0
    if credential is None:
        assert keys_that_open(destroyed, FLOW, root) == 1  # what a copy of everything can do
    shutil.copytree(copy, place, dirs_exist_ok=True)
    with pytest.raises(KeyStoreError, match="does not open"):
        Keys.open(place).flow_secret("maker", "service")


# A kill at any step. One child makes a copy of the store for each step and a grandchild works on
# it until the kernel is about to make that step; Python announces each (sys.audit), so that nothing
# of ours is replaced.

KILLED = """
import json, os, pathlib, shutil, signal, sys
from agent.keys import Keys
template, work, act = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
STEPS = ("os.rename", "os.remove", "os.chmod")
def strike(step):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        is_new = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if event in STEPS or is_new:
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
ended = []
while not ended or ended[-1] == -signal.SIGKILL:
    place = work / str(len(ended))
    shutil.copytree(template, place)
    child = os.fork()
    if not child:
        keys = Keys.open(place) if act != "move" else None
        strike(len(ended) + 1)
        if act == "destroy":
            keys.destroy_flow_secret("maker", "service")
        elif act == "admit":
            keys.admit("maker", pathlib.Path(sys.argv[4]).read_bytes())
        else:
            Keys.open(place)
        os._exit(0)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ended))
"""


def killed_at_each_step(place: Path, work: Path, act: str, *more: Path) -> list[Path]:
    """The stores that kills at the first, second, … step left; the last one was not struck."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(place), str(work), act, *map(str, more)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    ended = json.loads(done.stdout)
    assert ended[:-1] == [-signal.SIGKILL] * (len(ended) - 1), done.stderr
    assert ended[-1] == 0, done.stderr
    print(f"{len(ended) - 1} kills")
    return [work / str(step) for step in range(len(ended))]


@pytest.mark.clause("C26")
@pytest.mark.parametrize("credential", [None, CREDENTIAL], ids=["file", "credential"])
def test_a_kill_at_any_step_of_a_destruction_loses_nothing_else_and_the_next_opening_ends_it(
    place: Path, tmp_path: Path, manager: Manager, credential: bytes | None
) -> None:
    if credential:
        manager.hands(credential)
    keys = filled(place)
    other, destroyed = held(keys), (place / FLOW).read_bytes()
    left = killed_at_each_step(place, tmp_path, "destroy")
    assert len(left) > 10
    revived = []
    assert any(any(store.rglob(".tmp-*")) for store in left), "no write was torn"
    for store in left:
        assert held(Keys.open(store)) == other
        assert not any(store.rglob(".tmp-*"))
        ring = (store / "wrapping.key").stat().st_size
        assert ring == (32 if credential is None else 32 + 29), "one wrapping key is left"
        (store / FLOW).write_bytes(destroyed)
        try:
            Keys.open(store).flow_secret("maker", "service")
        except KeyStoreError:
            revived.append(False)
        else:
            revived.append(True)
    # Only where the wrapping key had not begun to change does the copy still open: the call had
    # not returned, and is to be made again.
    assert revived == sorted(revived, reverse=True)
    assert 0 < sum(revived) < 5
    assert not revived[-1]


@pytest.mark.clause("C21")
def test_a_kill_at_any_step_of_the_move_to_the_credential_loses_nothing(
    place: Path, tmp_path: Path, manager: Manager
) -> None:
    other = held(filled(place))
    plain = (place / "wrapping.key").read_bytes()
    manager.hands(CREDENTIAL)
    left = killed_at_each_step(place, tmp_path, "move")
    assert len(left) > 10
    rings = [(store / "wrapping.key").read_bytes() for store in left]
    assert rings[0] == plain
    assert {len(ring) for ring in rings} == {32, 2 * 32 + 29, 32 + 29}, "no step was missed"
    for store in left:
        assert held(Keys.open(store)) == other
        assert plain not in b"".join(files(store).values())
        assert keys_that_open((store / FLOW).read_bytes(), FLOW, plain) == 0


@pytest.mark.clause("C21")
def test_a_kill_at_any_step_of_a_renewal_leaves_a_whole_pair_and_the_answer_counts_still(
    place: Path, tmp_path: Path
) -> None:
    keys = filled(place)
    keys.admit("maker", certify(keys.tls_request("maker")))
    pair = keys.tls_pair("maker").relative_to(place)
    old, new = (place / pair).read_bytes(), tmp_path / "new.pem"
    new.write_bytes(certify(keys.tls_request("maker")))
    left = killed_at_each_step(place, tmp_path, "admit", new)
    assert len(left) > 2
    found = [(store / pair).read_bytes() for store in left]
    assert found[0] == old
    assert found[-1].startswith(new.read_bytes())
    assert len(set(found)) == 2, "the old pair or the new one, nothing between"
    for store in left:
        matches(store / pair)
        again = Keys.open(store)
        assert again.admitted("maker")
        again.admit("maker", new.read_bytes())
        assert (store / pair).read_bytes() == found[-1]
        assert not (store / "requests/maker.key").exists()
