"""The program that brings a project's pinned inputs here, for a flow that has DVC in a process of its own.

It is started in the project, reads a `PinnedInputs` record from a file, and speaks in lines of JSON:

    {"path": …, "step": "looking" | "fetching", "done": …, "total": …}    now and then
    {"fetched": [paths]} | {"refused": message} | {"unanswered": message} | {"failed": message}      in the end
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TextIO

from gkd_core.errors import DataError, PlatformError, TransientError
from gkd_core.versioning.pinned_data import Step, ensure
from gkd_core.versioning.pins import Pin, PinnedInputs

SECONDS = 5.0  # between two words on progress


class _Teller:
    """Tells the parent of progress, not for each file."""

    def __init__(self, parent: TextIO) -> None:
        self._parent = parent
        self._spoke = 0.0

    def __call__(self, pin: Pin, step: Step, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._spoke >= SECONDS:
            self._spoke = now
            self.tell({"path": pin.path, "step": step, "done": done, "total": total})

    def tell(self, word: dict[str, object]) -> None:
        print(json.dumps(word), file=self._parent, flush=True)


def main(parent: TextIO, record: str) -> None:
    """Bring the record's pins here and say how that went."""
    logging.getLogger("dvc").setLevel(logging.ERROR)  # what DVC would say, the flow says
    logging.getLogger("dvc_data").setLevel(logging.CRITICAL)  # a traceback for each object that a remote lacks
    teller = _Teller(parent)
    try:
        fetched = ensure(Path.cwd(), PinnedInputs.read(Path(record)).pins, teller)
    except DataError as error:
        teller.tell({"refused": str(error)})
    except TransientError as error:
        teller.tell({"unanswered": str(error)})
    except (PlatformError, OSError) as error:
        teller.tell({"failed": str(error)})
    else:
        teller.tell({"fetched": [pin.path for pin in fetched]})
