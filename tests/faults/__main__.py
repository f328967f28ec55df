# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.faults`: the long form."""

import sys

from tests.faults.campaign import main

if __name__ == "__main__":
    sys.exit(main())
