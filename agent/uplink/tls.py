# SPDX-License-Identifier: Apache-2.0
"""TLS to a broker: its pinned authority and no other, our certificate, its name checked.

Law:
  - the authorities of the system are never loaded;
  - on a machine whose clock nobody believes the ends of certificates are held against what is
    surely past; chain and name as ever;
  - our certificate and key are read anew for each connection, so that a replaced one is used;
  - what only a person can mend is told apart from what passes;
  - an end of our certificate is named beside the failure it may be the cause of, and keeps nobody
    from trying: the broker's clock decides.

Standards: RFC 8446, RFC 5246 at least; RFC 6125 (the name).
"""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import sys
from pathlib import Path
from typing import Final

from agent.spool import ClockTrust, Target
from assent import durable
from assent.errors import UplinkError, WireError
from assent.validity import ends_ms

# OpenSSL's X509_V_ERR_*: what a person can do something about.
_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_WRONG_NAME: Final = frozenset({62, 64})
_NO_PAIR: Final = "KEY_VALUES_MISMATCH"  # X509_R_KEY_VALUES_MISMATCH
_MAX_BYTES: Final = 65_536  # a chain of certificates is some 4 kB
# OpenSSL's names of the alerts of RFC 8446 §6.2 that are about our certificate.
_ALERTS: Final = {
    "SSLV3_ALERT_BAD_CERTIFICATE": "it is damaged",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it is of another kind",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it was revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it is not valid now",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it is not known; has it admitted us?",
    "TLSV1_ALERT_UNKNOWN_CA": "it is of another authority; has it admitted us?",
    "TLSV1_ALERT_ACCESS_DENIED": "it may not connect; has it admitted us?",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "there is none",
}


def expired(secured: ssl.SSLSocket, target: Target, past_ms: int) -> UplinkError | None:
    """Holds the ends of the broker's certificate and of its authority against what is past.

    For a machine whose clock nobody believes: chain and name are verified as ever, and a beginning
    cannot be judged.

    Args:
        secured: after its handshake.
        target: whose authority.
        past_ms: the latest instant that is surely past.

    Returns:
        What is wrong, or None.
    """
    found = secured.getpeercert() or {}
    end = found.get("notAfter")
    ends = [ssl.cert_time_to_seconds(end) * 1000] if isinstance(end, str) else [0]
    try:
        ends.append(ends_ms(target.ca_pem.encode()))
    except WireError:
        ends.append(0)
    return UplinkError("the broker's certificate has expired") if min(ends) < past_ms else None


def context(target: Target) -> ssl.SSLContext:
    """Builds the context of one connection.

    Args:
        target: whose authority, certificate and key.

    Returns:
        A client context that verifies the chain and the name.

    Raises:
        UplinkError: a file is missing or no PEM, or certificate and key do not belong together.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the name, needs a certificate
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if target.clock is not ClockTrust.MACHINE:
        made.verify_flags |= _NO_CHECK_TIME
    try:
        made.load_verify_locations(cadata=target.ca_pem)
    except (ssl.SSLError, ValueError) as exc:
        raise UplinkError("the pinned authority is no certificate") from exc
    try:
        made.load_cert_chain(target.cert_path, target.key_path)
    except (OSError, ValueError) as exc:  # SSLError is an OSError
        if isinstance(exc, ssl.SSLError) and exc.reason == _NO_PAIR:
            raise UplinkError("our certificate is for another key than the one beside it") from exc
        raise UplinkError(
            "our certificate or its key cannot be used",
            hint="see that the uplink may read them, and that the gateway was admitted",
        ) from exc
    return made


def alerted(reason: str) -> str:
    """Says what a broker has against our certificate.

    Args:
        reason: OpenSSL's name of its alert.

    Returns:
        One sentence; empty when the alert is about something else.
    """
    about = _ALERTS.get(reason)
    return f"the broker does not take our certificate: {about}" if about else ""


def needs_a_person(exc: Exception) -> bool:
    """Says whether what kept a connection from coming about will hardly change by itself.

    Dates do: the clock may be wrong until it is set.

    Args:
        exc: what `connect` raised.

    Returns:
        Whether somebody has to do something.
    """
    if isinstance(exc, ssl.SSLCertVerificationError):
        return exc.verify_code not in {_NOT_YET_VALID, _EXPIRED}
    if isinstance(exc, ssl.SSLError):
        return exc.reason in _ALERTS
    return isinstance(exc, UplinkError)


def sentence(exc: Exception, target: Target, now_ms: int) -> str:
    """Says for a person why a connection did not come about; names no host and no address.

    Args:
        exc: what `connect` raised.
        target: to whom.
        now_ms: wall time in ms since 1970 UTC.

    Returns:
        One sentence.
    """
    match exc:
        case UplinkError():
            said = exc.message
        case ssl.SSLCertVerificationError():
            said = _unverified(exc.verify_code, target, now_ms)
        case ssl.SSLError():
            reason = exc.reason or "no reason given"
            said = alerted(reason) or f"TLS failed: {reason.lower()}"
        case socket.gaierror():
            said = "the broker's name cannot be resolved"
        case TimeoutError():
            said = "the broker does not answer"
        case ConnectionRefusedError():
            said = "the broker refuses connections"
        case OSError():
            said = f"the broker cannot be reached: {(exc.strerror or 'connection lost').lower()}"
        case _:
            said = f"connecting failed: {type(exc).__name__}"
    return said


def outlived(target: Target, now_ms: int) -> str:
    """Says that our certificate is over, where it is.

    Args:
        target: whose certificate.
        now_ms: wall time in ms since 1970 UTC.

    Returns:
        What to add to a sentence, or nothing.
    """
    try:
        end_ms = ends_ms(durable.read(Path(target.cert_path), _MAX_BYTES))
    except (OSError, WireError):
        return ""
    if now_ms <= end_ms:
        return ""
    ended = dt.datetime.fromtimestamp(end_ms / 1000, dt.UTC)
    return f"; our certificate ended on {ended:%Y-%m-%d}: assent enrol --renew {target.recipient}"


def certificate_state(target: Target) -> tuple[tuple[int, int], ...]:
    """Gives what changes when our certificate or its key is replaced on the disk; cheap.

    Args:
        target: whose files.

    Returns:
        Another value after a change.
    """
    found = []
    for path in (target.cert_path, target.key_path):
        try:
            state = Path(path).stat()
        except OSError:
            found.append((0, 0))
        else:
            found.append((state.st_ino, state.st_mtime_ns))
    return tuple(found)


def _unverified(code: int, target: Target, now_ms: int) -> str:
    if code in _WRONG_NAME:
        return "the broker's certificate is for another name"
    if code == _NOT_YET_VALID:
        return "the broker's certificate is not valid yet; is the clock right?"
    if code == _EXPIRED and now_ms > _authority_ends_ms(target):
        return "the pinned authority has expired; its recipient has to sign a policy with another"
    if code == _EXPIRED:
        return "the broker's certificate has expired; is the clock right?"
    return "the broker's certificate was not issued by the pinned authority"


def _authority_ends_ms(target: Target) -> int:
    try:
        return ends_ms(target.ca_pem.encode())
    except WireError:
        return sys.maxsize
