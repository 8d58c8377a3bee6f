"""The images that a student knows, as its recipe names them: those that it learnt from, and others to judge distances by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.folders import field_images
from gkd_core.errors import DataError
from gkd_core.messages import shown
from gkd_core.methods import method_of
from gkd_core.predict.known import LEAST, Known, Named, PartName, part_of
from gkd_core.predict.pictures import picture_in
from gkd_core.predict.student import Segmentor
from gkd_core.stages.recipe import Recipe

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]
HELD_OUT = 5  # of the proxy, which has no images of its own to judge by, each fifth


def known_images(student: Segmentor, recipe: Recipe, workspace: Path, most: int, progress: Progress) -> Known:
    """Look at the images that a student of this recipe learnt from, and at the source's validation, and say what they are like.

    Args:
        workspace: what the settings' paths are relative to.
        most: images of the source, of its validation, of the proxy and of the field that joined it that are looked at, evenly
            spaced.
        progress: gives, for the number of images, a context whose function is told how many are done.

    Raises:
        DataError: the recipe does not train on the student's source; images are missing, damaged or too few.
    """
    parts = _parts(recipe, student.bundle.model.source, workspace, most)
    with progress(sum(len(seen.files) for _, *both in parts for seen in both)) as advance:
        done = count(1)

        def rows(files: Sequence[DataFile]) -> Iterator[Tensor]:
            for file in files:
                yield student.pooled(picture_in(file))
                advance(next(done))

        def named(seen: Seen) -> Named:
            return Named(seen.name, rows(seen.files))

        return Known({name: part_of(name, named(images), named(held), student.pooled_dim) for name, images, held in parts})


class Seen(NamedTuple):
    """Files that are looked at, and what they are called."""

    name: str
    files: Sequence[DataFile]


def _parts(recipe: Recipe, source: str, workspace: Path, most: int) -> list[tuple[PartName, Seen, Seen]]:
    """The files of each part, and of the images that its distances are judged by."""
    if source not in recipe.sources:
        raise DataError(
            f"source '{shown(source)}': is none of this recipe, which has {', '.join(recipe.sources)}; "
            "give its own settings (data.benchmarks)"
        )
    origin = recipe.origin(workspace)

    def files(domains: Sequence[Domain]) -> list[DataFile]:
        return [file for domain in domains for file in origin.images(domain)]

    learnt, validation = recipe.parts(source), recipe.measured_domains(source)[0]
    found: list[tuple[PartName, Seen, Seen]] = [
        ("source", Seen(_named(learnt), spaced(files(learnt), most)), Seen(str(validation), spaced(files([validation]), most)))
    ]
    distils = recipe.has_proxy_stage and method_of(recipe.settings).distillation is not None
    if distils:
        proxy = recipe.catalog.domain(recipe.settings.data.proxy)
        images, held_out = apart(spaced(files([proxy]), most))
        found.append(("proxy", Seen(str(proxy), images), Seen(f"{proxy}, held out", held_out)))
    if recipe.settings.data.field is not None and distils:
        images, held_out = apart(spaced(field_images(workspace / recipe.settings.data.field), most))
        found.append(("field", Seen("field images", images), Seen("field images, held out", held_out)))
    return found


def _named(domains: Sequence[Domain]) -> str:
    return " + ".join(domain.reference for domain in domains)


def spaced(files: Sequence[DataFile], most: int) -> list[DataFile]:
    """So many files at most, evenly spaced."""
    kept = min(len(files), max(LEAST, most))
    return [files[index * len(files) // kept] for index in range(kept)]


def apart(files: Sequence[DataFile]) -> tuple[list[DataFile], list[DataFile]]:
    """The files but for each fifth, and these; of fewer than five, the last."""
    step = max(1, min(HELD_OUT, len(files)))
    return [file for number, file in enumerate(files, start=1) if number % step], list(files[step - 1 :: step])
