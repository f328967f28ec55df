# SPDX-License-Identifier: Apache-2.0
"""The contract both ends share, and the public Python API for backends."""
