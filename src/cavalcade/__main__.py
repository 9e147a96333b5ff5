"""`python -m cavalcade`: the same as the command `cavalcade`."""

from __future__ import annotations

import sys

from cavalcade.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
