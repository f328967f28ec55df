# SPDX-License-Identifier: Apache-2.0
"""The backend's end: subscribe, verify, open, dedupe, store, acknowledge, forget."""
