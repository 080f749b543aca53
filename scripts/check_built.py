"""Check what `python -m build` made: what wheel and sdist must hold, and what they must not.

python scripts/check_built.py dist
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

NOT_IN_WHEEL = r"(^|/)(tests|docs|examples|benchmarks|scripts)/|__pycache__|\.pyc$"
NOT_IN_SDIST = r"^docs/probes\.html$|^\.(ci|github|git)/|__pycache__|\.pyc$|^site/"
IN_SDIST = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "tests/conftest.py",
    "docs/design.md",
)


def main(folder: Path) -> None:
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        inside = set(file.namelist())
    with tarfile.open(sdist) as file:
        source = {name.partition("/")[2] for name in file.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files", "src"], capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = {name.removeprefix("src/") for name in tracked}
    faults = [f"{wheel.name} lacks {name}" for name in sorted(wanted - inside)]
    faults += [f"{sdist.name} lacks {name}" for name in (*IN_SDIST, *tracked) if name not in source]
    faults += [f"{wheel.name} holds {n}" for n in sorted(inside) if re.search(NOT_IN_WHEEL, n)]
    faults += [f"{sdist.name} holds {n}" for n in sorted(source) if re.search(NOT_IN_SDIST, n)]
    if faults:
        raise SystemExit("\n".join(faults))
    for path, names in ((wheel, inside), (sdist, source)):
        print(f"{path.name}: {len(names)} files, {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
