"""Logs of bounded size: each start of a service begins a new one, the last few are kept."""

import shutil
from pathlib import Path

KEPT = 3
LARGEST_BYTES = 16 * 1024**2


def begin_log(path: Path) -> None:
    """Put the log of the last start aside, as `NAME.1`; `NAME.3` is the oldest that is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _shift(path)
    if path.exists():
        path.replace(_older(path, 1))


def bound_log(path: Path, largest: int = LARGEST_BYTES) -> None:
    """Empty a log that has grown too large, while it is written; what was in it is put aside."""
    if not path.exists() or path.stat().st_size <= largest:
        return
    _shift(path)
    shutil.copyfile(path, _older(path, 1))
    with path.open("r+b") as stream:  # its writer appends, so it goes on at the beginning
        stream.truncate(0)


def last_lines(path: Path, count: int) -> list[str]:
    """The end of a log, without empty lines."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()][-count:]


def _shift(path: Path) -> None:
    for number in range(KEPT - 1, 0, -1):
        if _older(path, number).exists():
            _older(path, number).replace(_older(path, number + 1))


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
