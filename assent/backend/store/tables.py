# SPDX-License-Identifier: Apache-2.0
"""The tables of `custody.db`, but for those of `waiting` and `aside`."""

from __future__ import annotations

from typing import Final

# What older stores lack.
LATER: Final = {
    "custody": {"first_ms", "last_ms"},
    "ends": {"told_ms"},
    "streams": {"heard_ms"},
}

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS gateways (
  mailbox TEXT PRIMARY KEY, sign_key BLOB NOT NULL UNIQUE, seal_key BLOB NOT NULL,
  admitted_ms INTEGER NOT NULL,
  policy_id TEXT, policy_serial INTEGER, format INTEGER, status_ms INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS custody (
  signer BLOB NOT NULL, stream BLOB NOT NULL, sequence INTEGER NOT NULL,
  digest BLOB NOT NULL, batch_ref BLOB NOT NULL UNIQUE, mailbox TEXT NOT NULL,
  flow TEXT NOT NULL, terms BLOB NOT NULL, record BLOB NOT NULL, epoch INTEGER NOT NULL,
  clock INTEGER NOT NULL, gaps TEXT NOT NULL, readings INTEGER NOT NULL, size INTEGER NOT NULL,
  received_ms INTEGER NOT NULL, first_ms INTEGER, last_ms INTEGER,
  PRIMARY KEY (signer, stream, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ends (
  signer BLOB NOT NULL, stream BLOB NOT NULL, flow TEXT NOT NULL, following INTEGER NOT NULL,
  told_ms INTEGER, PRIMARY KEY (signer, stream) -- told_ms: the first instant in what told it
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS streams (
  signer BLOB NOT NULL, stream BLOB NOT NULL, flow TEXT NOT NULL,
  watermark INTEGER NOT NULL, ranges TEXT NOT NULL, heard_ms INTEGER,
  PRIMARY KEY (signer, stream) -- heard_ms: when something of it was taken last
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (
  id INTEGER PRIMARY KEY, received_ms INTEGER NOT NULL, mailbox TEXT NOT NULL,
  reason TEXT NOT NULL, detail TEXT NOT NULL, size INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
"""
