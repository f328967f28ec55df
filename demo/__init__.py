# SPDX-License-Identifier: Apache-2.0
"""The demonstration, and the stage it shares with journeys and benchmarks."""
