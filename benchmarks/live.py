# SPDX-License-Identifier: Apache-2.0
"""Consent and policy change while everything runs: how long it takes, and what it costs the others.

Three flows carry all of a meter that is replayed as fast as it can be read; the agent is the two
programs that are installed, with TLS, a broker and a backend that stores and acknowledges. In one
kind of round the household takes back one flow and agrees to another, by forms through the control
socket, as `assent consent apply` does it. In the other the backend sends a newer policy with the
same terms (`published`: from `assent-backend publish` until the agent says that it is in force, the
backend's look at its directory included), and then a recipient hands the broker one that narrows a
flow and widens another (`change`: from there until it is in force).

What is lost: the meter's readings of the flow that nothing changed for, less those of it that are
stored when all have been read. Each round begins with the same gateway and the same store.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.control import ask
from assent.backend import adoption
from assent.backend.directory import Directory
from assent.backend.store import Store
from assent.cosekey import decode_seal_public_key
from assent.envelope import Kind, seal, sign_message
from assent.messages import down_topic
from benchmarks.household import Household
from benchmarks.path import ATTRIBUTES, policy_of
from benchmarks.report import Figure, write
from demo.stage import wait_until

BATCH = 1_000
FLOWS = 3
_ROUNDS = 5
# Rows of the recording: ten seconds of reading and more on two shared cores.
_ROWS = 80_000
# Seconds between two looks at whether a policy is in force.
_LOOK_S = 0.005
_PATIENCE_S = 120.0
_SAME, _LESS, _MORE = (f"diagnosis{index}" for index in range(FLOWS))
_VERSION, _SERIAL = "2026-11-01", 17

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """What one round measured.

    Attributes:
        took: milliseconds of each change, by its name.
        lost: readings of the flow that nothing changed for.
    """

    took: dict[str, float]
    lost: int


class Scene:
    """A household with three flows, and two policies that are not sent yet.

    Args:
        root: where everything is made.
    """

    def __init__(self, root: Path) -> None:
        self.household = Household(root, batch=BATCH, flows=FLOWS, classical=True)
        self.stage = self.household.stage
        self.household.record(_ROWS)
        self.household.devices(speed=0)
        self.same = root / "same.bundle"
        self.changed = root / "changed.bundle"
        for bundle, edit in ((self.same, _same), (self.changed, _changed)):
            shutil.copy(self.stage.publish(edit), bundle)
        self._places = [self.stage.gateway, self.stage.backend_directory("maker")]
        self._first = [root / f"first-{place.name}" for place in self._places]
        for place, first in zip(self._places, self._first, strict=True):
            place.rename(first)

    @property
    def maker(self) -> Directory:
        """The recipient's directory."""
        return Directory.open(self.stage.backend_directory("maker"))

    @contextlib.contextmanager
    def running(self, refused: str | None = None) -> Iterator[None]:
        """Everything as in the beginning, at work under load.

        Args:
            refused: a flow that the household has said no to before.
        """
        for place, first in zip(self._places, self._first, strict=True):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(first, place, ignore=shutil.ignore_patterns("*.bell"))
        if refused is not None:
            self.stage.assent("consent", "refuse", refused)
            time.sleep(1.1)  # a form has whole seconds, and a later yes has to be later
        with contextlib.ExitStack() as stack:
            self.stage.start_broker("maker")
            stack.callback(self.stage.end, "broker-maker")
            self.stage.start_backend("maker")
            stack.callback(self.stage.end, "backend-maker")
            self.stage.start_two()
            stack.callback(self.stage.end, "agent")
            stack.callback(self.stage.end, "uplink")
            wait_until(lambda: self.stored(_SAME) > 20 * BATCH, "readings arrive")
            yield

    def status(self) -> Json:
        """What the running agent says."""
        return ask(self.household.state, "status")

    def stored(self, flow: str) -> int:
        """Readings of a flow that the recipient holds."""
        rows = self.stage.show("maker", "flows")
        return sum(int(row["readings"]) for row in rows if row["flow"] == flow)

    def expect_load(self) -> None:
        """Fails when the meter was read to its end before the change was over."""
        if self.status()["devices"][0]["state"] == "ended":
            raise RuntimeError("the load ended before the change did")

    def lost(self) -> int:
        """Waits until everything was read and stored; what is missing of the unchanged flow."""

        def is_over() -> bool:
            status = self.status()
            if status["devices"][0]["state"] != "ended":
                return False
            ask(self.household.state, "flush")
            flows = {flow["flow"]: flow for flow in self.status()["flows"]}
            return bool(flows[_SAME]["waiting"]["batches"] == 0)

        wait_until(is_over, "everything is read and stored", _PATIENCE_S)
        return _ROWS * ATTRIBUTES - self.stored(_SAME)

    def in_force(self, serial: int) -> None:
        """Waits until a policy is in force."""
        end = time.monotonic() + _PATIENCE_S
        while self.status()["policy"]["serial"] != serial:
            if time.monotonic() > end:
                raise RuntimeError(f"serial {serial} did not come into force")
            time.sleep(_LOOK_S)

    def send(self, bundle: bytes) -> None:
        """Hands the broker a policy for the gateway; returns when it has it."""
        with contextlib.closing(Store(self.maker.root, writable=False)) as store:
            (gateway,) = store.custody.gateways()
        signed = sign_message(Kind.POLICY, bundle, self.maker.ack_key(), gateway.mailbox)
        data = seal(signed, decode_seal_public_key(gateway.seal_key), gateway.mailbox)
        client = mqtt.Client(CallbackAPIVersion.VERSION2, "benchmark", protocol=mqtt.MQTTv5)
        tls = self.maker.root / "tls"
        client.tls_set(str(tls / "ca.pem"), str(tls / "backend.pem"), str(tls / "backend.key"))
        ready = threading.Event()
        client.on_connect = lambda *_: ready.set()
        client.connect("127.0.0.1", self.stage.ports["maker"])
        client.loop_start()
        if not ready.wait(10):
            raise RuntimeError("the broker does not answer")
        client.publish(down_topic(gateway.mailbox), data, qos=1).wait_for_publish(10)
        client.disconnect()
        client.loop_stop()


def _same(text: str) -> str:
    """The next policy, with the same terms."""
    text = policy_of(text, BATCH, FLOWS)
    text = text.replace(f'version = "{_VERSION}"', 'version = "2026-12-01"')
    return text.replace(f"serial = {_SERIAL}", f"serial = {_SERIAL + 1}")


def _changed(text: str) -> str:
    """The one after that: one flow as it was, one kept for less long, one for longer."""
    text = _same(text).replace(f"serial = {_SERIAL + 1}", f"serial = {_SERIAL + 2}")
    for flow, kept in ((_LESS, "30d"), (_MORE, "365d")):
        at = text.index(f"[flows.{flow}]")
        text = text[:at] + text[at:].replace('recipient = "90d"', f'recipient = "{kept}"', 1)
    return text


def _timed(change: Callable[[], object]) -> float:
    began = time.monotonic()
    change()
    return (time.monotonic() - began) * 1e3


def _apply(scene: Scene, decision: str) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = (
        f'policy = "{_VERSION}"\ndecided_by = "owner"\nrecorded_by = "benchmark"\n'
        f'recorded_at = {now}\nmethod = "{time.monotonic_ns()}"\n[decisions]\n'
    ) + decision.replace("NOW", now)
    told = ask(scene.household.state, "apply", file="consent.toml", text=text)
    if not told["acted"] or told.get("certain") is False:
        raise RuntimeError(f"the form did not act: {told}")


def consent_round(scene: Scene) -> Round:
    """One flow is taken back, another one is agreed to."""
    with scene.running(refused=_MORE):
        no = _timed(lambda: _apply(scene, f'{_LESS} = "refused"\n'))
        yes = _timed(lambda: _apply(scene, f'{_MORE} = {{ decision = "given", on = NOW }}\n'))
        scene.expect_load()
        states = {flow["flow"]: flow["on"] for flow in scene.status()["flows"]}
        if states != {_SAME: True, _LESS: False, _MORE: True}:
            raise RuntimeError(f"the flows are {states}")
        return Round({"no": no, "yes": yes}, scene.lost())


def policy_round(scene: Scene) -> Round:
    """A policy with the same terms comes, then one with other terms."""

    def publish() -> None:
        adoption.publish(scene.same, [scene.maker])
        scene.in_force(_SERIAL + 1)

    def change() -> None:
        scene.send(scene.changed.read_bytes())
        scene.in_force(_SERIAL + 2)

    with scene.running():
        published = _timed(publish)
        changed = _timed(change)
        scene.expect_load()
        states = {flow["flow"]: flow["on"] for flow in scene.status()["flows"]}
        if states != {_SAME: True, _LESS: True, _MORE: False}:
            raise RuntimeError(f"the flows are {states}")
        return Round({"published": published, "change": changed}, scene.lost())


def measure(rounds: int = _ROUNDS) -> list[Figure]:
    """Both kinds of change; the longest of some rounds counts."""
    with tempfile.TemporaryDirectory() as place:
        scene = Scene(Path(place))
        try:
            consent = [consent_round(scene) for _ in range(rounds)]
            policy = [policy_round(scene) for _ in range(rounds)]
        finally:
            scene.stage.close()
    lost = [one.lost for one in (*consent, *policy)]
    return [
        _figure("consent_change_ms.no", [one.took["no"] for one in consent]),
        _figure("consent_change_ms.yes", [one.took["yes"] for one in consent]),
        _figure("policy_change_ms", [one.took["change"] for one in policy]),
        _figure("policy_published_ms", [one.took["published"] for one in policy]),
        Figure(
            name="live.readings_lost",
            value=max(lost, key=abs),
            unit="readings",
            target="== 0",
            holds=not any(lost),
            detail={"of": _ROWS * ATTRIBUTES, "flows": FLOWS, "runs": lost},
        ),
    ]


def _figure(name: str, took: list[float]) -> Figure:
    detail = {"median": round(statistics.median(took)), "runs": [round(one) for one in took]}
    return Figure(name=f"live.{name}", value=round(max(took)), unit="ms", detail=detail)


def main() -> int:
    """Prints the figures and keeps them; exit code 1 when one of them breaks its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    figures = measure(parser.parse_args().rounds)
    write(figures)
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
