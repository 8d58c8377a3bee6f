"""Datasets of a project: where each lies, brought in from elsewhere, pinned as they are, fetched as they were pinned."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gkd_core.data.catalog.entries import DatasetEntry
from gkd_core.errors import DataError
from gkd_core.stages import Recipe
from gkd_core.training.progress import Advance, progress
from gkd_core.versioning.dataset_layout import SplitFound, check_layout, check_links, check_shards, recognised
from gkd_core.versioning.pinned_data import Step, data_repo, ensure, is_absent, pin
from gkd_core.versioning.pinned_inputs import pinned_inputs
from gkd_core.versioning.pins import SUFFIX, Pin, PinnedInputs

DEFAULT_ROOT = Path("data")


@dataclass(frozen=True)
class Pinned:
    """A pin just written, and the splits that were found in it (none where it is no dataset's folder)."""

    pin: Pin
    splits: list[SplitFound]


class DatasetStore:
    """The datasets of one project, in the folder `data.root` or `data.shards` where that lies in the project, else in `data`."""

    def __init__(self, project: Path, recipe: Recipe) -> None:
        self.project = project.resolve()
        self.recipe, self.settings, self.catalog = recipe, recipe.settings, recipe.catalog
        data = recipe.settings.data
        given = data.root if data.shards_in_bucket else data.shards or data.root
        root = (self.project / given).resolve() if given is not None else None
        self.root = root if root is not None and self.project in root.parents else self.project / DEFAULT_ROOT

    @property
    def root_name(self) -> str:
        """The root, relative to the project."""
        return self.root.relative_to(self.project).as_posix()

    def path_of(self, name: str) -> str:
        """Where a dataset lies, relative to the project; a name that has a slash is such a path itself.

        Raises:
            DataError: the dataset is unknown, or its folder would lie outside the root.
        """
        entry = None if "/" in name else self.catalog.dataset(name)
        folder = name if entry is None or self.settings.data.shards is not None else entry.folder
        place = (self.project if entry is None else self.root) / folder
        root = self.project if "/" in name else self.root
        if root not in place.resolve().parents:
            raise DataError(f"{name}: {place} does not lie below {root}; DVC tracks what is inside the project only")
        return place.resolve().relative_to(self.project).as_posix()

    def add(self, name: str, source: Path) -> Pinned:
        """Copy a dataset of this machine into the project, and pin it. The original stays as it is.

        Raises:
            DataError: the source is not laid out as the dataset's entry says, or holds links; or the dataset is here already.
        """
        path = self.new_path(name)
        splits = self.check_source(name, source)
        target = self.project / path
        with data_repo(self.project) as repo, _removed_on_error(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            repo.add([str(source.resolve())], out=str(target))
        with data_repo(self.project) as repo:
            return Pinned(pin(repo, path), splits)

    def new_path(self, name: str) -> str:
        """`path_of` a dataset that is not here yet; `DataError` where it is, or is pinned."""
        path = self.path_of(name)
        if not is_absent(self.project / path):
            raise DataError(f"{path}: is here already; pin it as it is (gkd data pin {name}) or remove it first")
        if (self.project / (path + SUFFIX)).exists():
            raise DataError(
                f"{path}: is pinned already; fetch that content (gkd data fetch {name}) or remove {path}{SUFFIX} first"
            )
        return path

    def check_source(self, name: str, source: Path) -> list[SplitFound]:
        """Refuse a folder that is not a dataset's; see `check_layout` and `check_links`."""
        splits = check_layout(self.catalog.dataset(name), source)
        check_links(source)
        return splits

    def pin(self, names: Sequence[str]) -> Iterator[Pinned]:
        """Pin datasets as they are now, one after the other.

        Args:
            names: datasets, or paths in the project such as `data/shards/gta5`; none means all that the run reads.

        Raises:
            DataError: one is not here, is not laid out as its entry says, or holds links.
        """
        for path, named in self._paths(names).items():
            place = self.project / path
            if is_absent(place):
                raise DataError(f"{path}: nothing is there to pin; bring it in with gkd data add")
            splits = self._splits(path, named)
            check_links(place)
            with data_repo(self.project) as repo:
                yield Pinned(pin(repo, path), splits)

    def fetch(self, names: Sequence[str]) -> tuple[PinnedInputs, list[Pin]]:
        """Bring pinned datasets here that are absent, and refuse those that are not as pinned.

        Args:
            names: as for `pin`.

        Returns:
            all that was looked at, and the pins whose content was fetched.

        Raises:
            DataError: naming each dataset that is not as pinned, or is neither here nor pinned.
        """
        inputs = pinned_inputs(self.project, self.recipe, list(self._paths(names)) if names else None)
        with ExitStack() as stack:
            bars: dict[tuple[str, Step], Advance] = {}

            def say(pin: Pin, step: Step, done: int, total: int) -> None:
                key = (pin.path, step)
                if key not in bars:
                    stack.close()
                    bars[key] = stack.enter_context(progress(f"{pin.path}: {step} (files)", total))
                bars[key](done)

            return inputs, ensure(self.project, inputs.pins, say) if inputs.pins else []

    def _paths(self, names: Sequence[str]) -> dict[str, list[DatasetEntry]]:
        """The places that are meant, each with the datasets that it was named by; none where its path was given."""
        if not names and self.settings.data.world is not None:
            raise DataError(
                "data.root: not set, the run renders its images; name a dataset, or set data.root and data.world=null"
            )
        chosen = names or [domain.entry.name for domain in self.recipe.domains]
        places: dict[str, list[DatasetEntry]] = {}
        for name in dict.fromkeys(chosen):
            places.setdefault(self.path_of(name), []).extend([] if "/" in name else [self.catalog.dataset(name)])
        return places

    def _splits(self, path: str, named: Sequence[DatasetEntry]) -> list[SplitFound]:
        place = self.project / path
        check_shards(place)
        if self.settings.data.shards is not None or not place.is_relative_to(self.root):
            return []
        if named:
            return [split for entry in named for split in check_layout(entry, place)]
        return recognised(self.catalog, place.relative_to(self.root).as_posix(), place)


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    """Leave no half of a folder that was not there before."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
