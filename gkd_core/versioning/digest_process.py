"""The program that tells its parent DVC's digests of a plan's inputs as they are now.

It is started in a workspace, reads a list of paths from a JSON file, and says `{path: digest}` or `{"failed": message}`.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TextIO

from dvc.exceptions import DvcException

from gkd_core.messages import one_line
from gkd_core.versioning.hashes import SoundRepo, share_hashes


def _look(wanted: Path) -> dict[str, str]:
    paths = set(json.loads(wanted.read_text(encoding="utf-8")))
    found: dict[str, str] = {}
    try:
        with SoundRepo(".", _wait_for_lock=True) as repo:
            share_hashes(repo)
            for stage in repo.index.stages:
                for dependency in stage.deps:
                    path = dependency.def_path
                    if path in paths and path not in found:
                        found[path] = str(dependency.get_hash().value)
    except (DvcException, OSError) as error:
        return {"failed": one_line(error, 500)}
    return found


def main(parent: TextIO, wanted: str) -> None:
    """Look at the paths that the file lists and say what was found."""
    logging.getLogger("dvc").setLevel(logging.ERROR)  # what DVC would say, the flow says
    print(json.dumps(_look(Path(wanted))), file=parent, flush=True)
