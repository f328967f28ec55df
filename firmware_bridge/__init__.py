# SPDX-License-Identifier: Apache-2.0
"""The hardware: bytes from ports become Samples; knows no people, no keys, no network."""
