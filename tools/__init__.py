# SPDX-License-Identifier: Apache-2.0
"""What the Makefile runs that is no test, no benchmark and no part of what is installed."""
