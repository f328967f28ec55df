# SPDX-License-Identifier: Apache-2.0
"""The programs: collect and uplink, each by itself, and both in one process."""
