# SPDX-License-Identifier: Apache-2.0
"""Pure functions, bytes in and values out, one file per language spoken."""
