# SPDX-License-Identifier: Apache-2.0
"""The law and the road: everything between a Sample and the broker. Read `agent/path.py` first."""
