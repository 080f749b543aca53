"""Write tests/golden/corruptions.png anew: all corruptions at all severities.

python scripts/golden_corruptions.py      # from the project's folder; look at the picture before
you commit it
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.probes.tools.test_corruptions import GOLDEN, grid  # noqa: E402

Image.fromarray(grid()).save(GOLDEN, optimize=True)
