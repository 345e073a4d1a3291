"""``python -m snn_export`` is ``snn-export``."""

from __future__ import annotations

import sys

from snn_export.cli import main

if __name__ == "__main__":
    sys.exit(main())
