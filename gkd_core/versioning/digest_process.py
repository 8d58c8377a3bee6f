"""The program that tells its parent DVC's digests of a plan's inputs as they are now.

It is started in a workspace, reads a list of paths from the JSON file named second, and says `{path: digest}`, or
`{"failed": message}`, on the socket whose number comes first.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
from pathlib import Path

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


if __name__ == "__main__":
    logging.getLogger("dvc").setLevel(logging.ERROR)  # what DVC would say, the flow says
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("w", encoding="utf-8") as stream:
        print(json.dumps(_look(Path(sys.argv[2]))), file=stream, flush=True)
