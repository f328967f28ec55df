# SPDX-License-Identifier: Apache-2.0
"""`assent-backend`: the recipient's command line.

Law: stdout is the result, stderr is talk; exit 0 done, 1 failed, 2 usage, 3 refused; `--json`
where there is a result to read; no secret is ever an argument, and no key file is overwritten.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import fcntl
import json
import logging
import os
import pathlib
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from assent import durable
from assent.backend import admission, adoption, directory, publishing
from assent.backend.broker import Sources, install
from assent.backend.directory import Directory
from assent.backend.export import FORMATS
from assent.backend.grammar import parser
from assent.backend.keyfiles import owner_hint, read_key
from assent.backend.proof import gaps
from assent.backend.report import REPORTS
from assent.backend.store import Store
from assent.cosekey import decode_verifying_key, file_thumbprint, thumbprint_text
from assent.enrolment import MAX_BUNDLE
from assent.enrolment.kinds import wrong_file
from assent.errors import (
    AssentError,
    BadSignatureError,
    ConfigError,
    RefusedError,
    StoreError,
    UnknownSuiteError,
    UsageError,
    WireError,
)
from assent.nearest import nearest
from assent.signals import hear


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code says how it went."""
    arguments = parser().parse_args(argv)
    try:
        return _VERBS[arguments.verb](arguments)
    except AssentError as exc:
        _complain(exc)
        return exc.exit_code
    except BrokenPipeError:
        # Whoever read the result has seen enough; nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _keygen(arguments: argparse.Namespace) -> int:
    made = directory.create(
        arguments.directory,
        arguments.recipient,
        hosts=arguments.host,
        classical=arguments.classical,
        policy_key=arguments.policy_key,
        now=_now(),
    )
    files = {use: f"keys/{directory.public_name(made.recipient, use)}" for use in directory.PUBLIC}
    pins = {use: _pin(made.root, name) for use, name in directory.PUBLIC.items()}
    entries = {use: {"file": files[use], "thumbprint": pins[use]} for use in files}
    brokers = [f"mqtts://{_bracketed(host)}:8883" for host in arguments.host or ["localhost"]]
    public = shlex.quote(str(made.root / "public"))
    _talk(f"made keys and certificates of {made.recipient} in {made.root}")
    _talk(f"next: in the policy's folder: mkdir -p keys && cp {public}/* keys/")
    missing = [name for name in ("role", "region") if not getattr(arguments, name)]
    fill_in = f"; fill in {' and '.join(missing)}" if missing else ""
    _talk(f"next: this table belongs into policy.toml{fill_in}")
    if arguments.json:
        result = {"recipient": made.recipient, **entries, "brokers": brokers}
        print(json.dumps(result, indent=2))
        return 0
    print(f"[recipients.{made.recipient}]")
    print(f'role = "{arguments.role}"')
    print(f'region = "{arguments.region}"')
    for use, entry in entries.items():
        print(f'{use} = {{ file = "{entry["file"]}", thumbprint = "{entry["thumbprint"]}" }}')
    print(f"brokers = {json.dumps(brokers)}")
    return 0


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _pin(root: pathlib.Path, name: str) -> str:
    return thumbprint_text(file_thumbprint(name, (root / name).read_bytes()))


def _sign_policy(arguments: argparse.Namespace) -> int:
    root = arguments.files or arguments.policy.parent
    try:
        signed = publishing.sign_policy(arguments.policy, arguments.key, root, _now().date())
    except ConfigError as exc:
        _complain(exc)
        _talk(f"assent-backend: {arguments.policy} is not signed: a policy with a finding never is")
        return exc.exit_code
    head = signed.policy.policy
    for name in signed.filled:
        _talk(f"filled in the thumbprint of {name}")
    _talk(f"signed {head.id} {head.version}, serial {head.serial}")
    _result(arguments, signed.path, policy=head.id, version=head.version, serial=head.serial)
    return 0


def _bundle(arguments: argparse.Namespace) -> int:
    root = arguments.files or arguments.policy.parent
    data = publishing.bundle(arguments.policy, arguments.policy_key, root)
    _write(arguments.out, data)
    pin = thumbprint_text(read_key(arguments.policy_key, decode_verifying_key).thumbprint)
    _talk(f"bundled {len(data)} bytes; tell technicians the policy key by another way: {pin}")
    _result(arguments, arguments.out, bytes=len(data), policy_key=pin)
    return 0


def _publish(arguments: argparse.Namespace) -> int:
    here = [Directory.open(one) for one in arguments.directories]
    adopted = adoption.publish(arguments.bundle, here)
    head = adopted.signed.policy.policy
    pin = thumbprint_text(decode_verifying_key(adopted.bundle.policy_key).thumbprint)
    _talk(f"published {head.id} {head.version}, serial {head.serial}, under the policy key {pin}")
    if adopted.too_long:
        _talk(
            f"the bundle is {adopted.too_long} bytes too long to be sent: gateways that run an"
            " older policy need it as a file (assent enrol)"
        )
    files = [str(path) for path in adopted.written]
    if arguments.json:
        print(json.dumps({"files": files, "serial": head.serial, "policy_key": pin}, indent=2))
        return 0
    for file in files:
        print(file)
    return 0


def _admit(arguments: argparse.Namespace) -> int:
    here = Directory.open(arguments.directory)
    out = arguments.out or arguments.request.with_suffix(".admission")
    data = publishing.read(arguments.request, MAX_BUNDLE)  # the largest of the three files
    with contextlib.closing(Store(here.root)) as store:
        admitted = _admitted(arguments.request, data, here, store)
    _write(out, admitted.data)
    done = "renewed the certificate of" if admitted.is_renewal else "admitted"
    _talk(f"{done} {admitted.mailbox}; give the admission back to the gateway")
    _result(arguments, out, mailbox=admitted.mailbox, renewal=admitted.is_renewal)
    return 0


def _admitted(path: pathlib.Path, data: bytes, here: Directory, store: Store) -> admission.Admitted:
    try:
        return admission.admit(here, store, data, _now())
    except (BadSignatureError, UnknownSuiteError):
        raise  # whole, and what is wrong with it is its own sentence
    except WireError as exc:
        raise wrong_file(path, data, ["request"], exc) from exc


def _broker(arguments: argparse.Namespace) -> int:
    here = Directory.open(arguments.directory)
    out = arguments.out.resolve()
    sources = Sources(here.tls("ca.pem"), here.tls("broker.pem"), here.tls("broker.key"))
    try:
        conf = install(
            out,
            sources,
            port=arguments.port,
            host=arguments.address,
            recipients=[here.recipient],
            user=arguments.user,
        )
    except OSError as exc:
        raise UsageError(f"{exc.filename or out}: {exc.strerror}") from exc
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    _talk(f"next: {shlex.join([program or 'mosquitto', '-c', str(conf)])}")
    _result(arguments, conf)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    # paho and TLS cost 60 ms to import; only this verb needs them.
    from assent.backend.subscriber import Subscriber  # noqa: PLC0415
    from assent.backend.subscriber.connection import Broker, address  # noqa: PLC0415

    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="level=%(levelname)s room=%(name)s %(message)s",
    )
    here = Directory.open(arguments.directory)
    host, port = address(arguments.broker)
    ca = arguments.ca or here.tls("ca.pem")
    broker = Broker(host, port, ca, here.tls("backend.pem"), here.tls("backend.key"))
    with _alone(here.root), contextlib.closing(Store(here.root)) as store:
        subscriber = Subscriber(here, store, broker)
        if not subscriber.offers:
            raise RefusedError(
                f"no policy in {here.root / 'policies'} is published for {here.recipient}",
                hint="put policy.toml and policy.toml.cose there: without terms nothing is stored",
            )
        subscriber.run(ended_by_signal(), lambda: _talk(f"subscribed at {broker}"))
    return 0


def ended_by_signal() -> threading.Event:
    """Gives what SIGTERM and SIGINT set from now on; called before any thread is made."""
    stop = threading.Event()
    hear({signal.SIGTERM, signal.SIGINT}, lambda _number: stop.set())
    return stop


@contextlib.contextmanager
def _alone(root: pathlib.Path) -> Iterator[None]:
    """Holds the directory's lock: two subscribers would take the session from each other."""
    path = root / "run.lock"
    try:
        lock = path.open("a")
    except OSError as exc:
        raise StoreError(
            f"{path} cannot be written: {exc.strerror}", hint=owner_hint(path, exc)
        ) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise RefusedError(f"another subscriber runs on {root}") from exc
        yield


def _show(arguments: argparse.Namespace) -> int:
    here = Directory.open(arguments.directory)
    if arguments.what == "data" and not arguments.flow:
        raise UsageError("data are shown flow by flow", hint="add --flow NAME; see: show DIR flows")
    with contextlib.closing(Store(here.root, writable=False)) as store, store.ours():
        ages = _published(here)
        if arguments.flow:
            _check_flow(arguments.flow, ages.keys() | store.readings.names())
        if arguments.what == "gaps":
            now_ms = int(_now().timestamp() * 1000)
            report = gaps(store, arguments.flow, now_ms, ages)
        else:
            report = REPORTS[arguments.what](store, arguments.flow, arguments.limit)
    if arguments.json:
        print(json.dumps(report.json(), ensure_ascii=False, indent=2))
    else:
        for line in report.lines():
            print(line)
    if report.doubtful:
        _talk("something is missing that nothing explains: see unexplained, gone and unreadable")
    return int(report.doubtful)


def _export(arguments: argparse.Namespace) -> int:
    here = Directory.open(arguments.directory)
    with contextlib.closing(Store(here.root, writable=False)) as store, store.ours():
        _check_flow(arguments.flow, _published(here).keys() | store.readings.names())
        sys.stdout.writelines(FORMATS[arguments.format](store.readings, arguments.flow))
    return 0


def _published(here: Directory) -> dict[str, int]:
    """The flows that are published, each with the ms a batch of it stays open at most."""
    ages: dict[str, int] = {}
    with contextlib.suppress(AssentError):  # a policy that does not verify hides no row
        for (flow, _), offer in here.published().offers.items():
            ages[flow] = max(offer.age_ms, ages.get(flow, 0))
    return ages


def _check_flow(flow: str, known: set[str]) -> None:
    if flow in known:
        return
    names = ", ".join(sorted(known)) or "none yet"
    raise UsageError(
        f"no flow {flow!r} is published or stored here",
        hint=nearest(flow, known, quoted=False) or f"flows here: {names}",
    )


def _write(path: pathlib.Path, data: bytes) -> None:
    try:
        durable.write(path, data, mode=0o644)
    except OSError as exc:
        raise UsageError(f"{path} cannot be written: {exc.strerror}") from exc


def _result(arguments: argparse.Namespace, path: pathlib.Path, **more: str | int) -> None:
    """Prints the file that was written; with `--json` what is known about it, too."""
    print(json.dumps({"file": str(path), **more}, indent=2) if arguments.json else path)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _talk(line: str) -> None:
    print(line, file=sys.stderr)


def _complain(error: AssentError) -> None:
    """Prints an error: its sentence and, where there is one, what to do."""
    if isinstance(error, ConfigError):
        for finding in error.findings:
            print(finding, file=sys.stderr)
        return
    print(f"assent-backend: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)


_VERBS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "keygen": _keygen,
    "sign-policy": _sign_policy,
    "bundle": _bundle,
    "publish": _publish,
    "admit": _admit,
    "broker": _broker,
    "run": _run,
    "show": _show,
    "export": _export,
}


if __name__ == "__main__":
    sys.exit(main())
