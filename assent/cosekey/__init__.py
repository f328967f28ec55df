# SPDX-License-Identifier: Apache-2.0
"""Keys as COSE_Key: signing and sealing pairs, their bytes, their thumbprints.

Law:
  - four kinds of key and no other: Ed25519 signing and verifying, sealing private and public;
  - the type of a sealing key decides the suite, so that nobody negotiates: OKP X25519 is HPKE-4,
    AKP with the algorithm MLKEM768-X25519 is HPKE-9;
  - a key is read only in its own form: exactly the members of its type, deterministic CBOR; a
    `kid` (2) that another tool wrote is allowed and ignored;
  - a private key carries its public half, and the two must agree;
  - a private key shows its thumbprint in its repr, never itself.

Standards: RFC 9052 §7 (COSE_Key), RFC 9053 §7.2 (OKP), draft-ietf-cose-dilithium (AKP), RFC 9679
(thumbprint, SHA-256). The numbers are in `assent.wire`.

Security: the bytes of a private key are plaintext; whoever stores them wraps them.
"""

from assent.cosekey.pairs import (
    KID_BYTES,
    SIGNATURE_BYTES,
    SealPrivateKey,
    SealPublicKey,
    SigningKey,
    VerifyingKey,
    thumbprint_text,
)
from assent.cosekey.reading import (
    MAX_KEY_BYTES,
    decode_public_key,
    decode_seal_private_key,
    decode_seal_public_key,
    decode_signing_key,
    decode_verifying_key,
    file_thumbprint,
)
from assent.wire import Algorithm

__all__ = [
    "KID_BYTES",
    "MAX_KEY_BYTES",
    "SIGNATURE_BYTES",
    "Algorithm",
    "SealPrivateKey",
    "SealPublicKey",
    "SigningKey",
    "VerifyingKey",
    "decode_public_key",
    "decode_seal_private_key",
    "decode_seal_public_key",
    "decode_signing_key",
    "decode_verifying_key",
    "file_thumbprint",
    "thumbprint_text",
]
