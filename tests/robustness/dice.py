"""How the tests here draw: REFOCUS_SEED=7 draws otherwise, REFOCUS_LONG=1 leaves nothing out."""

from __future__ import annotations

import os

SEED = int(os.environ.get("REFOCUS_SEED", "0"))
LONG = os.environ.get("REFOCUS_LONG", "") not in ("", "0")
