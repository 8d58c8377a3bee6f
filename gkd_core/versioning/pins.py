"""Pins: which version of an input a project has settled on, as DVC's file `<path>.dvc` beside the input states it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gkd_core.errors import DataError, SettingsError
from gkd_core.messages import given_value
from gkd_core.records import Record
from gkd_core.settings import read_yaml_mapping

SUFFIX = ".dvc"


class Pin(Record):
    """One pinned folder or file of a project.

    Attributes:
        path: relative to the project, with slashes.
        md5: DVC's digest of the content; a folder's ends in `.dir`.
        files, bytes: how much that is.
        revision: git commit that last changed the pin; null where it is not committed as it stands.
        source, source_revision: where the content was brought in from, and its version there; null for local folders.
    """

    path: str
    md5: str
    files: int
    bytes: int
    revision: str | None = None
    source: str | None = None
    source_revision: str | None = None

    @property
    def file(self) -> str:
        """Path of the pin itself, relative to the project."""
        return self.path + SUFFIX

    @property
    def size(self) -> str:
        """How much is pinned, in words."""
        return f"{self.files} files, {self.bytes / 1e6:.1f} MB"


class PinnedInputs(Record):
    """The versions of what a run reads: its pins, and the paths that have none."""

    kind: Literal["pinned-inputs"] = "pinned-inputs"
    pins: tuple[Pin, ...] = ()
    unpinned: tuple[str, ...] = ()


def read_pin(project: Path, path: str) -> Pin:
    """The pin of a path; without a revision, which git alone knows.

    Raises:
        DataError: there is none, or it is not a file that DVC wrote for this one path.
    """
    file = project / (path + SUFFIX)
    if not file.is_file():
        raise DataError(f"{path}: not pinned, there is no {path}{SUFFIX}; run: gkd data pin {path}")
    try:
        tree = read_yaml_mapping(file)
        (out,) = tree["outs"]
        origin = _origin(tree)
        pin = Pin(path=path, md5=out["md5"], files=out.get("nfiles", 1), bytes=out["size"], **origin)
        pinned = out["path"]
    except (SettingsError, KeyError, TypeError, ValueError):
        raise DataError(
            f"{path}{SUFFIX}: not a pin; expected what `dvc add` writes (outs with md5, size and path). Where a merge "
            f"broke it: git checkout {path}{SUFFIX}"
        ) from None
    if tree.get("wdir") or pinned != Path(path).name:
        raise DataError(f"{path}{SUFFIX}: pins {given_value(pinned)} instead of '{Path(path).name}' beside it; pin it again")
    return pin


def _origin(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Where `gkd data add` or `dvc import-url` had the content from."""
    meta = tree.get("meta") or {}
    if "source" in meta:
        return {"source": meta["source"], "source_revision": meta.get("revision")}
    for dependency in tree.get("deps") or ():
        return {"source": dependency["path"], "source_revision": dependency.get("md5") or dependency.get("etag")}
    return {}


def pins_of(project: Path, inputs: Iterable[Path]) -> PinnedInputs:
    """The pins that lie at or above these inputs (paths relative to the project, or absolute), and the inputs without one.

    Of inputs without a pin that lie in one another only the first is named, a dataset's folder where it is given first.

    Raises:
        DataError: as `read_pin`.
    """
    project = project.resolve()
    pins: dict[str, Pin] = {}
    unpinned: list[Path] = []
    for given in inputs:
        path = project / given
        holder = next((place for place in (path, *path.parents) if project in place.parents and _is_pinned(place)), None)
        if holder is not None:
            name = holder.relative_to(project).as_posix()
            pins.setdefault(name, read_pin(project, name))
        elif not any(path.is_relative_to(other) for other in unpinned):
            unpinned.append(path)
    names = [path.relative_to(project) if path.is_relative_to(project) else path for path in unpinned]
    return PinnedInputs(pins=tuple(pins.values()), unpinned=tuple(name.as_posix() for name in names))


def _is_pinned(path: Path) -> bool:
    return path.with_name(path.name + SUFFIX).is_file()


@dataclass(frozen=True)
class Difference:
    """How a folder differs from its pin: names of files below it."""

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    added: tuple[str, ...]


def compare(pinned: Mapping[str, str], present: Mapping[str, str]) -> Difference:
    """Compare two listings of a folder: digests by name."""
    return Difference(
        tuple(sorted(pinned.keys() - present.keys())),
        tuple(sorted(name for name in pinned.keys() & present.keys() if pinned[name] != present[name])),
        tuple(sorted(present.keys() - pinned.keys())),
    )


def refusal(pin: Pin, difference: Difference | None) -> str:
    """What to tell of a dataset that is not as pinned, and what to do.

    Args:
        difference: None where the pin's listing is not here to compare with.
    """
    undo = f"dvc checkout --force {pin.file}"
    if difference is None:
        return (
            f"{pin.path}: its content is not that of {pin.file}. Keep what is there: gkd data pin {pin.path}; "
            f"have the pinned content: dvc fetch {pin.file} && {undo}"
        )
    if difference.missing and not difference.changed and not difference.added:
        return (
            f"{pin.path}: only a part of it is here, {len(difference.missing)} of {pin.files} files are missing, such as "
            f"{difference.missing[0]}. Fetch the rest: dvc pull {pin.file}"
        )
    kinds = {"changed": difference.changed, "missing": difference.missing, "not of the pin": difference.added}
    counts = ", ".join(f"{len(names)} {kind} (such as {names[0]})" for kind, names in kinds.items() if names)
    return (
        f"{pin.path}: differs from its pin {pin.file}: {counts}. Keep what is there: gkd data pin {pin.path}; "
        f"have the pinned content back: {undo}"
    )
