"""`python -m tests.torture.unprotected NAME serve ...`: a process of the hub with one protection taken off."""

from __future__ import annotations

import sys

from lumbung.cli import main
from tests.torture.protections import PROTECTIONS

if __name__ == "__main__":
    PROTECTIONS[sys.argv.pop(1)]()
    main()
