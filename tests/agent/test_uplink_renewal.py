# SPDX-License-Identifier: Apache-2.0
"""Our certificate changes under a running uplink; a real mosquitto says which one it was shown."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from agent.spool import LinkState
from assent import durable
from tests.agent.carrying import NOT_TAKEN, Gateway
from tests.simulators.broker import Broker
from tests.simulators.certificates import DAY, Authority, Pair
from tests.simulators.conditions import eventually
from tests.simulators.stub import Stub
from tests.simulators.subscriber import Subscriber, listening

pytestmark = pytest.mark.journey


@pytest.fixture
def gateway(tmp_path: Path, authority: Authority, broker: Broker) -> Iterator[Gateway]:
    """An uplink at work that has certificate and key in one file, as agent/keys leaves them."""
    one = Gateway(tmp_path / "g", authority, broker.url)
    place = tmp_path / "g" / "pair.pem"
    put(place, authority.client(one.mailbox))
    one.target = msgspec.structs.replace(one.target, cert_path=str(place), key_path=str(place))
    one.spool.set_targets([one.target])
    one.open_lane()
    one.start()
    yield one
    one.close()


def put(place: Path, pair: Pair, key: bytes = b"") -> None:
    durable.write(place, pair.certificate.read_bytes() + (key or pair.key.read_bytes()))


def pair_of(gateway: Gateway) -> Path:
    return Path(gateway.target.cert_path)


def refuses(broker: Broker, authority: Authority, certificate: bytes) -> None:
    """Cuts every connection; from now on this one certificate is refused."""
    broker.stop()
    broker.configure(f"crlfile {authority.revoke(certificate)}")
    broker.start()


def arrives(backend: Subscriber, sent: list[bytes]) -> bool:
    return bool(eventually(lambda: set(sent) <= set(backend.payloads)))


@pytest.mark.clause("C21")
@pytest.mark.parametrize("renewed", [True, False], ids=["renewed", "not renewed"])
def test_a_pair_that_was_replaced_while_connected_is_shown_at_the_next_connection(
    gateway: Gateway, authority: Authority, broker: Broker, renewed: bool
) -> None:
    """The broker takes back the old certificate, so that only the new one can connect."""
    with listening(broker.port, authority) as backend:
        assert arrives(backend, gateway.put(3))
    old = pair_of(gateway).read_bytes()
    if renewed:
        put(pair_of(gateway), authority.client(gateway.mailbox))
    refuses(broker, authority, old)
    with listening(broker.port, authority) as backend:
        sent = gateway.put(3)
        if renewed:
            assert arrives(backend, sent)
        else:
            gateway.reaches(LinkState.WAITING, *NOT_TAKEN)
            assert set(sent).isdisjoint(backend.payloads)  # earlier ones may come twice


def test_a_pair_that_does_not_belong_together_is_named_and_the_next_whole_one_is_used(
    gateway: Gateway, authority: Authority, broker: Broker
) -> None:
    """As a file written by hand in two halves; what is connected stays so meanwhile."""
    old, new = pair_of(gateway).read_bytes(), authority.client(gateway.mailbox)
    with listening(broker.port, authority) as backend:
        assert arrives(backend, gateway.put(3))
        key = new.key.read_bytes()
        whole = old[: old.index(b"-----BEGIN PRIVATE")]
        durable.write(pair_of(gateway), whole + key)
        assert arrives(backend, gateway.put(3))
        assert gateway.health.state is LinkState.CONNECTED
    refuses(broker, authority, old)
    gateway.reaches(LinkState.WAITING, "our certificate is for another key than the one beside it")
    put(pair_of(gateway), new)
    with listening(broker.port, authority) as backend:
        assert arrives(backend, gateway.put(3))


def test_a_certificate_that_is_over_is_named_with_what_to_do(
    gateway: Gateway, authority: Authority, broker: Broker
) -> None:
    """The twin is a stranger's certificate, which is refused and not over (test_uplink_broker)."""
    over = authority.client(gateway.mailbox, -DAY / 24)
    put(pair_of(gateway), over)
    broker.stop()
    broker.start()
    ended = x509.load_pem_x509_certificate(over.certificate.read_bytes()).not_valid_after_utc
    said = f"our certificate ended on {ended:%Y-%m-%d}: assent enrol --renew maker"
    gateway.reaches(LinkState.WAITING, said)
    put(pair_of(gateway), authority.client(gateway.mailbox))
    with listening(broker.port, authority) as backend:
        assert arrives(backend, gateway.put(3))


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        ("a stranger's", "does not take our certificate: it is of another authority"),
        ("one that is over", "does not take our certificate: it is not valid now"),
    ],
)
def test_what_a_broker_has_against_our_certificate_is_named(
    tmp_path: Path, authority: Authority, certificate: str, said: str
) -> None:
    """With TLS 1.2, where it says so before it hangs up; with 1.3 the two may overtake each other.
    The twin is one that it takes."""
    with Stub(authority) as stub:
        stub.limit_to(ssl.TLSVersion.TLSv1_2)
        one = Gateway(tmp_path / "g", authority, stub.url)
        good = [Path(one.target.cert_path).read_bytes(), Path(one.target.key_path).read_bytes()]
        strangers = Authority(tmp_path / "strangers")
        over = certificate == "one that is over"
        bad = authority.client(one.mailbox, -DAY / 24) if over else strangers.client(one.mailbox)
        place = tmp_path / "pair.pem"
        put(place, bad)
        one.target = msgspec.structs.replace(one.target, cert_path=str(place), key_path=str(place))
        one.spool.set_targets([one.target])
        one.open_lane()
        one.start()
        try:
            told = one.reaches(LinkState.WAITING, said)
            assert over == ("our certificate ended on" in told.detail)
            assert stub.versions == []
            durable.write(place, b"".join(good))
            one.reaches(LinkState.CONNECTED)
        finally:
            one.close()
