"""What a job reports in lines of its log: step metrics as they come, at the end its error or its result's digests.

The Jobs API returns nothing but the log while a job runs, and Ray puts a prefix before each line of a worker.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping

from gkd_core import errors
from gkd_core.documents import DocumentError, parse_json
from gkd_core.errors import GkdError, PlatformError
from gkd_core.training.metrics import Line, MetricsSink, parse_line

METRICS = "gkd-metrics"
ERROR = "gkd-error"
RESULT = "gkd-result"
WRITTEN = "written"  # seconds since 1970
LINE = re.compile(rf"({METRICS}|{ERROR}|{RESULT}) (\{{.*\}})$")


def wire_sink() -> MetricsSink:
    """A sink that writes each line of metrics to the log, with the moment by which a reader knows it again.

    A line may come more than once: a node that starts again hands on the logs that it finds on its disk.
    """

    def write(step: int, values: Mapping[str, float]) -> None:
        _say(METRICS, {"step": step, WRITTEN: time.time(), **values})

    return write


def say_error(error: GkdError) -> None:
    """Write an error to the log, for `parse_error` of whoever reads it."""
    _say(ERROR, {"kind": type(error).__name__, "message": str(error)})


def say_result(files: Mapping[str, str]) -> None:
    """Write the SHA-256 of each file of the result, by its path, to the log.

    Not to the bucket that the files lie in: whoever has a key to that could write others, and the digests of those.
    """
    _say(RESULT, {"files": dict(files)})


def parse_result(text: str) -> dict[str, str] | None:
    """The digests of a line of the log; None where it has none."""
    facts = _facts(RESULT, text)
    files = None if facts is None else facts.get("files")
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        return None
    return files


def parse_metrics(text: str) -> Line | None:
    """The metrics of a line of the log; None where it has none."""
    found = _found(text)
    return None if found is None or found[1] != METRICS else parse_line(found[2], needed=("step", WRITTEN))


def parse_error(text: str) -> GkdError | None:
    """The error of a line of the log, as the same class of ours; None where it has none."""
    facts = _facts(ERROR, text)
    if facts is None:
        return None
    kind = getattr(errors, str(facts.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, GkdError)):
        kind = PlatformError
    return kind(str(facts.get("message")))


def _say(word: str, facts: Mapping[str, object]) -> None:
    # Not by `print`: Ray Train puts one of its own in its place, by which a line reaches the log twice.
    sys.stdout.write(f"{word} {json.dumps(facts)}\n")
    sys.stdout.flush()


def _found(text: str) -> re.Match[str] | None:
    text = text.rstrip()
    # What ends otherwise is none, and is not searched: a long line of beginnings would take quadratic time.
    return LINE.search(text) if text.endswith("}") else None


def _facts(word: str, text: str) -> dict[str, object] | None:
    found = _found(text)
    if found is None or found[1] != word:
        return None
    try:
        facts = parse_json(found[2], len(found[2]))
    except DocumentError:
        return None
    return facts if isinstance(facts, dict) else None
