"""Pinned data in DVC's hands: pin a folder, look whether it is as pinned, fetch it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo
from dvc_data.hashfile.build import build
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.transfer import transfer
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError
from fsspec.callbacks import Callback

from gkd_core.documents import dump_yaml
from gkd_core.errors import DataError, PlatformError
from gkd_core.files import atomic_file
from gkd_core.messages import one_line, shown
from gkd_core.settings import read_yaml_mapping
from gkd_core.storage.errors import explained
from gkd_core.versioning.hashes import SoundRepo
from gkd_core.versioning.pins import SUFFIX, Pin, compare, read_pin, refusal

Step = Literal["looking", "fetching"]
Say = Callable[[Step, int, int], None]  # what is done, files so far, files in all
ATTEMPTS = 3


@contextmanager
def data_repo(project: Path) -> Iterator[Repo]:
    """The project's DVC repository, waited for where another process works in it; what it fetches is checked by digest.

    Raises:
        PlatformError: the project has none, or DVC cannot do what it is asked in the block.
    """
    try:
        with SoundRepo(str(project.resolve()), _wait_for_lock=True) as repo:
            # Unasked, DVC takes what a remote has under a digest for what the digest says.
            for remote in repo.config["remote"].values():
                remote["verify"] = True
            yield repo
    except DvcException as error:
        raise PlatformError(f"DVC in {project}: {one_line(error, 500)}") from error


def pin(repo: Repo, path: str) -> Pin:
    """Pin a folder or file as it is now, or pin it again.

    Args:
        path: relative to the project.

    Returns:
        the pin, as its file states it.
    """
    repo.add([str(Path(repo.root_dir) / path)])
    return read_pin(Path(repo.root_dir), path)


def note_source(project: Path, path: str, source: str, revision: str | None) -> None:
    """Write into a pin where its content was brought in from; DVC keeps it there."""
    file = project / (path + SUFFIX)
    tree = read_yaml_mapping(file)
    tree["meta"] = {"source": source} | ({} if revision is None else {"revision": revision})
    with atomic_file(file) as temporary:
        temporary.write_text(dump_yaml(tree), encoding="utf-8")


def is_absent(path: Path) -> bool:
    """Whether nothing of a pinned folder or file is there."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def check(repo: Repo, pin: Pin, say: Say) -> None:
    """Look whether a pinned folder has the pinned content. Files that DVC has seen before are known by their time of change.

    Raises:
        DataError: it has not; the message says what to do.
    """
    out = _output(repo, pin)
    with _counted(say, "looking", pin.files) as callback:
        _, meta, present = build(
            out.cache, out.fs_path, out.fs, out.hash_name, ignore=out.dvcignore, dry_run=True, callback=callback
        )
    # The size is compared too, as DVC knows a file that it fetched unchecked by the digest that it should have.
    if present.hash_info == out.hash_info and meta.size == pin.bytes:
        return
    pinned = _tree(out)
    difference = None if pinned is None or not isinstance(present, Tree) else compare(_listing(pinned), _listing(present))
    raise DataError(refusal(pin, difference))


def fetch(repo: Repo, pin: Pin, say: Say) -> None:
    """Bring a pinned folder that is absent here: its objects into the cache, those that are not there yet, then the folder.

    Raises:
        DataError: the remote lacks an object or has another content under its name; nothing stands under the folder's name then.
        PlatformError: there is no remote, or it refuses.
        TransientError: it does not answer.
    """
    out = _output(repo, pin)
    with explained(pin.path, "fetching it from the DVC remote"):
        _transfer(repo, out, {out.hash_info}, Callback(), pin)
        if out.is_dir_checksum:
            tree = Tree.load(out.cache, out.hash_info)
            _check_names(pin, tree)
            with _counted(say, "fetching", pin.files) as callback:
                _transfer(repo, out, {info for _, _, info in tree}, callback, pin)
    repo.checkout([str(Path(repo.root_dir) / pin.file)])


def _output(repo: Repo, pin: Pin) -> Output:
    (stage,) = repo.stage.load_all(str(Path(repo.root_dir) / pin.file))
    (out,) = stage.outs
    return out


def _tree(out: Output) -> Tree | None:
    """The pin's listing, where the cache has it."""
    if not out.is_dir_checksum:
        return None
    try:
        return Tree.load(out.cache, out.hash_info)
    except (FileNotFoundError, ObjectFormatError):
        return None


def _listing(tree: Tree) -> dict[str, str]:
    return {"/".join(key): str(info.value) for key, _, info in tree}


def _check_names(pin: Pin, tree: Tree) -> None:
    """Refuse a listing that would write outside the folder: whoever fills the remote may have written it."""
    for key, _, _ in tree:
        if any(part in ("", ".", "..") or "/" in part or "\\" in part for part in key):
            raise DataError(
                f"{pin.file}: its listing names '{shown('/'.join(key))}', which is no file below {pin.path}; nothing was written"
            )


def _transfer(repo: Repo, out: Output, wanted: set[HashInfo], callback: Callback, pin: Pin) -> None:
    """Objects from the remote into the cache, each checked by its digest; those that fail are tried again."""
    absent = _absent(out, wanted)
    if not absent:
        return
    remote = repo.cloud.get_remote_odb(out.remote, "fetch")
    for _ in range(ATTEMPTS):
        transfer(remote, out.cache, absent, verify=True, cache_odb=out.cache, callback=callback)
        absent = _absent(out, absent)
        if not absent:
            return
    raise DataError(
        f"{pin.path}: the DVC remote {remote.fs.unstrip_protocol(remote.path)} lacks {len(absent)} of {len(wanted)} objects "
        f"of its pin, or has other content in their place, such as {min(str(info.value) for info in absent)}. "
        f"Push again from where the data are whole: dvc push {shlex.quote(pin.file)}"
    )


def _absent(out: Output, wanted: set[HashInfo]) -> set[HashInfo]:
    return {info for info in wanted if not out.cache.exists(info.value)}


@contextmanager
def _counted(say: Say, step: Step, total: int) -> Iterator[Callback]:
    callback = Callback(hooks={"say": lambda size, value, **_: say(step, value, max(total, value))})
    with callback:
        yield callback


def ensure(project: Path, pins: Sequence[Pin], say: Callable[[Pin, Step, int, int], None]) -> list[Pin]:
    """Bring all pinned inputs here: fetch those that are absent, look at those that are present.

    All are looked at before anything is fetched, so that a refusal comes at once.

    Returns:
        those fetched.

    Raises:
        DataError: naming every input that is not as pinned, a line each.
    """
    with data_repo(project) as repo:
        absent = [pin for pin in pins if is_absent(project / pin.path)]
        complaints = []
        for pin in pins:
            if pin not in absent:
                try:
                    check(repo, pin, partial(say, pin))
                except DataError as error:
                    complaints.append(str(error))
        if complaints:
            raise DataError("\n".join(complaints))
        for pin in absent:
            fetch(repo, pin, partial(say, pin))
    return absent
