"""Lays out the pages as the site sees them: `make docs` runs it, then MkDocs.

MkDocs reads one folder, and pages link to those of other rooms as they lie in the repository. So what is linked is copied, its
paths kept.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "artifacts" / "site" / "source"
SHOWN = {".md", ".png", ".yaml", ".ipynb"}
LEFT_OUT = ("tests/", "gkd_core/", "studies/")


def main() -> None:
    """Copy every page, picture and file that pages link to."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if Path(name).suffix in SHOWN and not name.startswith(LEFT_OUT):
            target = SOURCE / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)


if __name__ == "__main__":
    main()
