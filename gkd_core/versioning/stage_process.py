"""The program that has DVC reproduce one stage of the workspace it is started in, and tells its parent how that went.

Parent and child speak in lines (`dvc_process`):

    child: start             the stage's command is about to run; the child waits for an answer
    parent: go
    child: ran | restored | unchanged | failed STATUS | error MESSAGE
"""

from __future__ import annotations

import logging
import re
from typing import Any, TextIO

from dvc.exceptions import DvcException, ReproductionError
from dvc.repo import Repo
from dvc.stage.cache import RunCacheNotFoundError, StageCache
from dvc.stage.exceptions import StageCmdFailedError

from gkd_core.messages import one_line
from gkd_core.versioning.hashes import SoundRepo, share_hashes


class _AskingCache(StageCache):  # type: ignore[misc]  # DVC is not annotated
    """DVC's cache of runs; asks the parent before a stage runs whose result the cache does not have."""

    def __init__(self, repo: Repo, parent: TextIO) -> None:
        super().__init__(repo)
        self.parent = parent
        self.restored = False

    def restore(self, stage: Any, **options: Any) -> None:
        try:
            super().restore(stage, **options)
        except RunCacheNotFoundError:
            print("start", file=self.parent, flush=True)
            if self.parent.readline() != "go\n":
                raise SystemExit(1) from None
            raise
        self.restored = True


def reproduce(name: str, parent: TextIO) -> str:
    """Reproduce one stage; returns the line to tell the parent."""
    try:
        # Stages side by side take turns at DVC's lock; on a busy machine a turn may take longer than DVC waits by itself.
        with SoundRepo(".", _wait_for_lock=True) as repo:
            share_hashes(repo)
            cache = repo.stage_cache = _AskingCache(repo, parent)
            changed = repo.reproduce(name, single_item=True)
    except ReproductionError as error:
        if isinstance(error.__cause__, StageCmdFailedError):
            status = re.search(r"exited with (-?\d+)$", str(error.__cause__))
            return f"failed {status[1]}" if status else f"error {one_line(error.__cause__, 500)}"
        return f"error {one_line(error.__cause__ or error, 500)}"
    except DvcException as error:
        return f"error {one_line(error, 500)}"
    return "unchanged" if not changed else "restored" if cache.restored else "ran"


def main(parent: TextIO, name: str) -> None:
    """Reproduce one stage and say how that went."""
    logging.getLogger("dvc").setLevel(logging.ERROR)  # what DVC would say, the flow says
    print(reproduce(name, parent), file=parent, flush=True)
