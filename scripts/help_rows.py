"""Write the rows that help lists (`refocus.cli.rows`) anew: `python scripts/help_rows.py`."""

from pathlib import Path

from refocus.cli.main import listed
from refocus.cli.rows import FILE, text

if __name__ == "__main__":
    Path(str(FILE)).write_text(text(listed()), encoding="utf-8")
