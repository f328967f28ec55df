# SPDX-License-Identifier: Apache-2.0
"""Verbs to rooms, errors to sentences; no work of its own."""
