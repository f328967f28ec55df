# SPDX-License-Identifier: Apache-2.0
"""A certificate is renewed while everything runs, and the broker has taken the old one back."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from assent.backend.admission import admit
from assent.backend.directory import Directory
from assent.backend.store import Store
from demo.stage import Stage, wait_until
from tests.agent.carrying import NOT_TAKEN
from tests.journeys.parts import YES

pytestmark = pytest.mark.journey
LASTS = dt.timedelta(days=365.25 * 20)


def admit_at(stage: Stage, request: Path, now: dt.datetime) -> Path:
    """What `assent-backend admit` would have answered then."""
    here = Directory.open(stage.backend_directory("maker"))
    with closing(Store(here.root)) as store:
        admitted = admit(here, store, request.read_bytes(), now)
    path = stage.root / "early.admission"
    path.write_bytes(admitted.data)
    return path


def revoke(stage: Stage, certificate: bytes) -> Path:
    """The maker's list of certificates it takes back (RFC 5280 §5), with this one in it."""
    authority = Directory.open(stage.backend_directory("maker")).authority()
    now = dt.datetime.now(dt.UTC)
    serial = x509.load_pem_x509_certificate(certificate).serial_number
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
    signed = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - dt.timedelta(days=1))
        .next_update(now + dt.timedelta(days=1))
        .add_revoked_certificate(entry.build())
        .sign(authority.key, hashes.SHA256())
    )
    path = stage.root / "crl.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return path


def restart_broker(stage: Stage, extra: str) -> None:
    stage.end("broker-maker")
    conf = stage.root / "brokers" / "maker" / "mosquitto.conf"
    conf.write_text(f"{conf.read_text()}\n{extra}\n")
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    assert program
    stage._start("broker-maker", [program, "-c", str(conf)])
    stage._wait_for_port("broker-maker", stage.ports["maker"])


def stored(stage: Stage) -> int:
    batches = stage.show("maker", "batches", "--limit", "100000")
    return len(batches)


def link(stage: Stage) -> str:
    found = [one for one in stage.status()["uplinks"] if one["recipient"] == "maker"]
    return f"{found[0]['state']} {found[0]['detail']}" if found else ""


@pytest.mark.clause("C21")
def test_a_certificate_is_renewed_beside_a_running_agent_and_delivery_goes_on(
    stage: Stage,
) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=12.5)
    request = stage.gateway / "requests" / "maker.request"
    stage.assent("enrol", "--renew", "maker")
    stage.assent("enrol", str(admit_at(stage, request, soon - LASTS)))
    stage.start_broker("maker")
    stage.start_backend("maker")
    stage.decide(YES)
    stage.start_agent()
    wait_until(lambda: stored(stage) > 0, "the maker stores what came under the old certificate")
    due = "certificate for maker ends in 12 days: assent enrol --renew maker"
    assert due in stage.status()["notices"]
    assert due in stage.assent("check")

    # As the notice says, beside the running agent.
    old = (stage.gateway / "state/keys/tls/maker.pem").read_bytes()
    stage.assent("enrol", "--renew", "maker")
    admission = stage.root / "renewed.admission"
    words = ["admit", str(stage.backend_directory("maker")), str(request), "--out", str(admission)]
    assert json.loads(stage.backend(*words, "--json"))["renewal"] is True
    agent = stage.programs["agent"].pid

    # The twin: before the answer is taken in, only the old one can be shown.
    restart_broker(stage, f"crlfile {revoke(stage, old)}")
    wait_until(
        lambda: any(one in link(stage) for one in NOT_TAKEN), "the broker refuses the old one"
    )
    before = stored(stage)

    stage.assent("enrol", str(admission))
    wait_until(lambda: stored(stage) > before, "the maker stores what came under the new one")
    assert not [line for line in stage.status()["notices"] if "certificate" in line]
    assert stage.programs["agent"].pid == agent
    assert stage.programs["agent"].poll() is None
