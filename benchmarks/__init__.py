# SPDX-License-Identifier: Apache-2.0
"""One script for each promise that has a figure."""
