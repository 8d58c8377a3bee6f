"""Removes from an environment what no container needs: python trim.py VENV, in a build of an image. Standard library alone.

Programs stay as their wheels have them but for the parts below, none of which anything in the images imports or starts.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

# Folders named `tests` of these, at any depth. Not of every package: some call so what they need.
TESTED = ("matplotlib", "mpmath", "networkx", "numpy", "pandas", "pyarrow", "scipy", "skops", "sklearn", "sympy")
PARTS = {
    "pyarrow/include": "headers for programs in C++",
    "pyarrow/*flight*": "Arrow's RPC, which nothing else of it is linked to",
    "ray/jars": "workers in Java",
    "torch/bin/protoc*": "a compiler of protocols",
    "torch/bin/test_*": "torch's own tests in C++",
    "torch/test": "torch's own tests in C++",
}


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = (each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return sum(each.lstat().st_size for each in files)


def superfluous(packages: Path) -> list[Path]:
    """What is there of it in a folder of packages."""
    tests = [path for name in TESTED for path in (packages / name).rglob("tests") if path.is_dir()]
    found = [*tests, *(path for pattern in PARTS for path in packages.glob(pattern))]
    return sorted(path for path in found if not any(path != other and path.is_relative_to(other) for other in found))


def main(venv: Path) -> None:
    """Remove it, and say how much it was."""
    found = [path for packages in venv.glob("lib/python3.*/site-packages") for path in superfluous(packages)]
    total = sum(map(size, found))
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    print(f"trim.py: {len(found)} files and folders removed, {total / 1e6:.0f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
