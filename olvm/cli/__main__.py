"""`python -m olvm.cli` is `olvm`."""

from __future__ import annotations

import sys

from olvm.cli import main

sys.exit(main())
