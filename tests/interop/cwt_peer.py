# SPDX-License-Identifier: Apache-2.0
"""The other end of test_cwt: signs, verifies, seals and opens with python-cwt alone.

Runs in an environment of its own, because cwt needs an older cbor2; imports nothing of ours.
Reads a JSON list of jobs on stdin and prints a JSON list of results: `{"ok": hex, "header": hex}`
or `{"error": text}`.
"""

from __future__ import annotations

import json
import sys

import cbor2
from cwt import COSE, COSEKey

hexed = bytes.fromhex


def plain(header: dict) -> dict:
    return {int(label): field for label, field in header.items()}


def do(job: dict) -> dict:
    key = COSEKey.new(cbor2.loads(hexed(job["key"])))
    external = hexed(job["external"])
    if job["do"] in {"sign", "seal"}:
        cose = COSE.new(deterministic_header=True)
        protected = cbor2.loads(hexed(job["protected"]))
        clear = cbor2.loads(hexed(job["clear"]))
        made = cose.encode(hexed(job["payload"]), key, protected, clear, external_aad=external)
        return {"ok": made.hex()}
    cose = COSE.new()
    detached = hexed(job["detached"]) if "detached" in job else None
    protected, _, payload = cose.decode_with_headers(
        hexed(job["data"]), key, external_aad=external, detached_payload=detached
    )
    return {"ok": payload.hex(), "header": cbor2.dumps(plain(protected), canonical=True).hex()}


def answer(job: dict) -> dict:
    try:
        return do(job)
    except Exception as exc:  # noqa: BLE001 - the test asserts what an error is
        return {"error": f"{type(exc).__name__}: {exc}"}


if __name__ == "__main__":
    json.dump([answer(job) for job in json.load(sys.stdin)], sys.stdout)
