# SPDX-License-Identifier: Apache-2.0
"""A recipient and a gateway made by hand, from the contract alone: nothing of the agent is here."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import pathlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from assent import columns
from assent.backend import directory, publishing
from assent.backend.directory import Directory
from assent.backend.ingest import Desk
from assent.backend.offers import Offer
from assent.backend.outcomes import Gateway
from assent.columns import Column, Kind, Quantum, Table
from assent.cosekey import SealPrivateKey, SealPublicKey, SigningKey, VerifyingKey
from assent.enrolment import EnrolRequest, encode_request
from assent.envelope import (
    BatchHeader,
    ClockQuality,
    Gap,
    open_down,
    seal,
    sign_batch,
    sign_message,
)
from assent.envelope import Kind as MessageKind
from assent.messages import Acknowledgement, decode_acknowledgement, new_mailbox, up_topic
from assent.policy.signing import load_policy
from assent.policy.terms import terms_of

NOW = dt.datetime(2026, 11, 22, 10, 15, tzinfo=dt.UTC)
NOW_MS = int(NOW.timestamp() * 1000)
START_MS = 1_795_305_600_000  # 2026-11-22T00:00Z, a multiple of every window below
PSEUDONYM = bytes(range(16))
TENTH = Quantum(1, 10)

POLICY = """\
# SPDX-License-Identifier: Apache-2.0
[policy]
id = "example-appliances"
version = "2026-11-01"
serial = 17
controller = "Example Appliances Co."

[recipients.maker]
role = "controller"
region = "CN"
key = { file = "maker/keys/seal.pub.cose", thumbprint = "sha-256:filled-in-by-sign-policy--maker-seal-key---" }
ack_key = { file = "maker/keys/ack.pub.cose", thumbprint = "sha-256:filled-in-by-sign-policy--maker-ack-key----" }
brokers = ["mqtts://ingest.example.com:8883"]
ca = { file = "maker/tls/ca.pem", thumbprint = "sha-256:filled-in-by-sign-policy--maker-ca-file----" }

[recipients.advice]
role = "partner"
region = "DE"
key = { file = "advice/keys/seal.pub.cose", thumbprint = "sha-256:filled-in-by-sign-policy--advice-seal-key--" }
ack_key = { file = "advice/keys/ack.pub.cose", thumbprint = "sha-256:filled-in-by-sign-policy--advice-ack-key---" }
brokers = ["mqtts://ingest.example.net:8883"]
ca = { file = "advice/tls/ca.pem", thumbprint = "sha-256:filled-in-by-sign-policy--advice-ca-file---" }

[attributes."appliance.power"]
kind = "sensor"
type = "number"
unit = "W"
quantum = 0.1
about = "Electric power drawn by the appliance."
owner = "energy team"
review = 2028-11-30

[attributes."appliance.temperature"]
kind = "sensor"
type = "number"
unit = "Cel"
quantum = 0.1
about = "Temperature inside the appliance."
owner = "energy team"
review = 2028-11-30

[attributes."appliance.starts"]
kind = "sensor"
type = "integer"
unit = "1"
monotonic = true
about = "How often the appliance has started."
owner = "energy team"
review = 2028-11-30

[attributes."appliance.fault"]
kind = "event"
type = "text"
choices = ["E01", "E02", "E03"]
about = "Fault code."
owner = "service team"
review = 2028-11-30

[attributes."appliance.heating"]
kind = "sensor"
type = "boolean"
about = "Whether the heater is on."
owner = "service team"
review = 2028-11-30

[attributes."device.serial"]
kind = "identifier"
type = "text"
about = "Serial number of the appliance."
owner = "service team"
review = 2028-11-30

[attributes."location.area"]
kind = "location"
type = "position"
about = "Where the appliance stands, coarsely."
owner = "service team"
review = 2028-11-30

[attributes."connection.network"]
kind = "connection"
type = "text"
about = "The network the gateway is reached through."
owner = "gateway team"
review = 2028-11-30

[flows.remote-diagnosis]
function = "optional"
purpose = "fault-diagnosis"
notice = { en = "Find faults before they become failures." }
basis = "consent"
recipient = "maker"
keep = { gateway = "7d", recipient = "90d", then = "delete" }

[flows.remote-diagnosis.attributes]
"appliance.power" = "keep"
"appliance.temperature" = "round(0.5)"
"appliance.starts" = "delta"
"appliance.fault" = "keep"
"appliance.heating" = "keep"
"device.serial" = "pseudonym"
"location.area" = "grid(20)"
"connection.network" = "prefix(24)"

[flows.product-improvement]
function = "optional"
purpose = "product-improvement"
notice = { en = "Build better appliances." }
basis = "consent"
recipient = "maker"
attributes = { "appliance.power" = "window(15m, mean)", "appliance.fault" = "enum(E01)" }
keep = { gateway = "7d", recipient = "90d", then = "delete" }

[flows.energy-advice]
function = "optional"
purpose = "energy-advice"
notice = { en = "Tell you how to save energy." }
basis = "consent"
recipient = "advice"
attributes = { "appliance.power" = "window(1h, mean)" }
keep = { gateway = "7d", recipient = "30d", then = "delete" }
separate = true
"""


def offers(text: str = POLICY) -> dict[str, Offer]:
    """The terms of a policy's flows."""
    policy = load_policy(text.encode())
    return {
        name: Offer(name, terms_of(policy, name), "2026-11-01", 17, flow.batch.readings)
        for name, flow in policy.flows.items()
    }


@functools.cache
def published(recipient: str = "maker") -> dict[tuple[str, bytes], Offer]:
    """What a recipient of the policy above has published."""
    return {
        (flow, offer.terms.hash): offer
        for flow, offer in offers().items()
        if offer.terms.recipient == recipient
    }


@dataclasses.dataclass(frozen=True)
class Hand:
    """A gateway made by hand: its keys for one recipient."""

    mailbox: str
    sign: SigningKey
    seal: SealPrivateKey

    @classmethod
    def make(cls) -> Hand:
        return cls(new_mailbox(), SigningKey.generate(), SealPrivateKey.generate(classical=True))

    @property
    def gateway(self) -> Gateway:
        return Gateway(self.mailbox, self.sign.public, self.seal.public)

    @property
    def topic(self) -> str:
        return up_topic(self.mailbox)

    def batch(
        self,
        to: SealPublicKey,
        tables: Sequence[Table] | bytes,
        *,
        flow: str = "remote-diagnosis",
        recipient: str = "maker",
        stream: int = 1,
        sequence: int = 0,
        terms: bytes | None = None,
        clock: ClockQuality = ClockQuality.TRUSTED,
        gaps: tuple[Gap, ...] = (),
    ) -> bytes:
        header = BatchHeader(
            recipient=recipient,
            flow=flow,
            terms=offers()[flow].terms.hash if terms is None else terms,
            record=bytes(16),
            stream=stream,
            sequence=sequence,
            epoch=683,
            clock=clock,
            gaps=gaps,
        )
        payload = tables if isinstance(tables, bytes) else columns.encode(tables)
        return seal(sign_batch(header, payload, self.sign, self.mailbox), to, self.mailbox)

    def control(self, to: SealPublicKey, kind: MessageKind, body: bytes) -> bytes:
        return seal(sign_message(kind, body, self.sign, self.mailbox), to, self.mailbox)

    def acknowledgement(self, data: bytes, ack_key: VerifyingKey) -> Acknowledgement:
        """Opens and verifies what came down."""
        control = open_down(data, key=self.seal, signer=ack_key, mailbox=self.mailbox)
        assert control.kind is MessageKind.ACKNOWLEDGEMENT
        return decode_acknowledgement(control.body)

    def request(self, tls: ec.EllipticCurvePrivateKey, recipient: str = "maker") -> bytes:
        request = EnrolRequest(
            recipient=recipient,
            mailbox=self.mailbox,
            csr=csr(tls, self.mailbox),
            sign_key=self.sign.public.encode(),
            seal_key=self.seal.public.encode(),
        )
        return encode_request(request, self.sign)


def csr(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def power(
    rows: int = 3, *, first_ms: int = START_MS, every_ms: int = 1000, device: bytes = PSEUDONYM
) -> tuple[Table, ...]:
    """One device's power, counted in tenths of a watt."""
    times = [first_ms + row * every_ms for row in range(rows)]
    values = [1000 + row for row in range(rows)]
    return (Table(device, times, (Column("appliance.power", Kind.NUMBER, values, TENTH),)),)


def desk(hands: Sequence[Hand], key: SealPrivateKey, *, recipient: str = "maker") -> Desk:
    """What a judgement rests on."""
    known = {hand.mailbox: hand.gateway for hand in hands}
    return Desk(recipient, {key.kid: key}, published(recipient), known.get)


def site(root: pathlib.Path) -> dict[str, Directory]:
    """Backend directories of both recipients, with one signed policy published in each."""
    made = {
        name: directory.create(root / name, name, policy_key=name == "maker", now=NOW)
        for name in ("maker", "advice")
    }
    path = root / "policy.toml"
    path.write_text(POLICY)
    publishing.sign_policy(path, made["maker"].key("policy.key.cose"), root, NOW.date())
    for one in made.values():
        for file in (path, root / "policy.toml.cose"):
            (one.root / "policies" / file.name).write_bytes(file.read_bytes())
        public = made["maker"].key("policy.pub.cose").read_bytes()
        one.key("policy.pub.cose").write_bytes(public)
    return made
