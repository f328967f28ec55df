# SPDX-License-Identifier: Apache-2.0
"""What enrolment asks of X.509: a proven certificate request, a chain made out to a mailbox.

Law: the subject is one common name, the mailbox; nothing else of the gateway stands there.

Standards: RFC 2986 (requests), RFC 5280 (certificates), RFC 7468 (PEM).

Security: reads requests from strangers. Which authority signs or is trusted is not judged here:
the backend's authority signs, and TLS verifies against the one the policy pins.
"""

from __future__ import annotations

from cryptography import x509

from assent.errors import BadSignatureError, MalformedError


def check_request(pem: bytes, mailbox: str) -> None:
    """Returns when a certificate request is signed with its own key and made out to a mailbox.

    Args:
        pem: the request.
        mailbox: what its subject must be.

    Raises:
        BadSignatureError: whoever made it does not hold its key.
        MalformedError: no request, or another subject.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        signed = request.is_signature_valid
        subject = request.subject.rfc4514_string()
    except Exception as exc:  # the parser raises what it meets, KeyError among it
        raise MalformedError("expected a certificate request in PEM") from exc
    if not signed:
        raise BadSignatureError("the certificate request is not signed with its own key")
    if subject != f"CN={mailbox}":
        raise MalformedError("expected the mailbox alone as subject of the certificate request")


def check_chain(pem: bytes, mailbox: str) -> None:
    """Returns when the first certificate of a chain is made out to a mailbox.

    Args:
        pem: the chain, leaf first.
        mailbox: what its subject must be.

    Raises:
        MalformedError: no certificates, or another subject.
    """
    try:
        leaf = x509.load_pem_x509_certificates(pem)[0].subject.rfc4514_string()
    except Exception as exc:  # as above
        raise MalformedError("expected certificates in PEM") from exc
    if leaf != f"CN={mailbox}":
        raise MalformedError("expected the mailbox alone as subject of the first certificate")
