"""Room on disk, and how outputs get from DVC's cache into a workspace."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path

from gkd_core.operations.doctor.finding import Finding, error, warning, well
from gkd_core.operations.doctor.machine import Machine
from gkd_core.paths import ARTIFACTS

GIB = 1024**3
LEAST, LITTLE = 1 * GIB, 10 * GIB
CACHE = Path(".dvc/cache")
FICLONE = 0x40049409  # Linux: make a file share another's blocks


def check_room(machine: Machine) -> Iterable[Finding]:
    """Room where results, the cache and temporary files lie."""
    places = {
        "disk, artifacts": machine.project / ARTIFACTS,
        "disk, DVC cache": machine.project / CACHE,
        "disk, temporary": Path(machine.environment.get("TMPDIR") or tempfile.gettempdir()),
    }
    for subject, folder in places.items():
        free = machine.disk_free(folder)
        found = f"{free / GIB:.1f} GiB free at {folder}"
        if free < LEAST:
            yield error(
                subject, found, f"free at least {LEAST // GIB} GiB; dvc gc --workspace, old artifacts/workspaces, other files"
            )
        elif free < LITTLE:
            yield warning(subject, found, "free some: a run at full size needs tens of GiB")
        else:
            yield well(subject, found)


def check_links(machine: Machine) -> Iterable[Finding]:
    """Whether the cache and the workspaces can share files, or every result is kept twice."""
    cache, artifacts = _there(machine.project / CACHE), _there(machine.project / ARTIFACTS)
    kinds = link_kinds(cache, artifacts)
    if kinds:
        yield well("links to the cache", f"{' and '.join(kinds)} from {cache}")
    else:
        found = f"none possible from {cache} to {artifacts}"
        yield warning("links to the cache", found, "let both lie on one file system, or every result takes its room twice")


def link_kinds(source: Path, target: Path) -> list[str]:
    """Ways to have a file of one folder in the other without copying its bytes: reflink, hardlink."""
    handle, name = tempfile.mkstemp(prefix=".gkd-doctor-", dir=source)
    original, link = Path(name), target / f"{Path(name).name}.link"
    kinds = []
    try:
        os.write(handle, b"x" * 4096)
        with suppress(OSError):
            with link.open("wb") as stream:
                ioctl(stream.fileno(), FICLONE, handle)
            kinds.append("reflinks")
        link.unlink(missing_ok=True)
        with suppress(OSError):
            os.link(original, link)
            kinds.append("hard links")
    finally:
        os.close(handle)
        original.unlink()
        link.unlink(missing_ok=True)
    return kinds


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    while not folder.is_dir():
        folder = folder.parent
    return folder
