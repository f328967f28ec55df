# SPDX-License-Identifier: Apache-2.0
"""Everything breaks, and every reading is stored once or lies in a declared gap.

Path: `world` (the real programs), `kinds` (what breaks them), `oracle` (what must hold), `campaign`
(what `make faults` does with them), `python -m tests.faults`.
"""
