# SPDX-License-Identifier: Apache-2.0
"""Thin shells, one port, one timeout, one decoder each; loaded only when configured."""
