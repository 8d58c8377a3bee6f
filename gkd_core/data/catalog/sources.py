"""What a student learns from: one dataset split, or several mixed."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from gkd_core.data.catalog.taxonomy import Declaration


class Mix(NamedTuple):
    """Images of several parts that lie end to end.

    Attributes:
        sizes: images in each part.
        draws: images of each part in an epoch, which has as many images as there are.
    """

    sizes: tuple[int, ...]
    draws: tuple[int, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """Index of the first image of each part."""
        return tuple(accumulate(self.sizes[:-1], initial=0))

    def joined_by(self, images: int) -> Mix:
        """With so many further images behind, each drawn once in an epoch, which grows by as many.

        >>> Mix((60, 40), (75, 25)).joined_by(5)
        Mix(sizes=(60, 40, 5), draws=(75, 25, 5))
        """
        return Mix((*self.sizes, images), (*self.draws, images))


def whole(size: int) -> Mix:
    """The mix of a single part."""
    return Mix((size,), (size,))


class Source(Declaration):
    """One `dataset/split` or several, each with its weight: the share of images that come from it.

    Declared as one reference, as a list of references, whose weights are their numbers of images, so that all images are seen
    equally often, or as references with their weights.
    """

    parts: dict[str, float | None] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _declared(cls, given: Any) -> Any:
        if isinstance(given, dict) and set(given) == {"parts"}:
            return given
        references = [given] if isinstance(given, str) else given
        if not isinstance(references, list | dict) or not references or not all(isinstance(part, str) for part in references):
            raise ValueError(
                "expected dataset/split, a list of these, or these with weights, such as {gta5/train: 2, synthia/all: 1}"
            )
        if len(set(references)) < len(references):
            raise ValueError("a part is named twice")
        if isinstance(references, list):
            return {"parts": dict.fromkeys(references)}
        odd = [part for part, weight in references.items() if isinstance(weight, bool) or not _is_positive(weight)]
        if odd:
            raise ValueError(f"weight of {odd[0]}: expected a number above 0; a list has no weights and counts images")
        return {"parts": references}

    @property
    def references(self) -> tuple[str, ...]:
        """The parts, each as `dataset/split`."""
        return tuple(self.parts)

    @property
    def name(self) -> str:
        """Names of the datasets, joined by `_`: the source's name in stages, folders and reports."""
        return "_".join(dict.fromkeys(reference.partition("/")[0] for reference in self.parts))

    def __str__(self) -> str:
        return " + ".join(part if weight is None else f"{weight:g} x {part}" for part, weight in self.parts.items())

    def mix(self, sizes: Sequence[int]) -> Mix:
        """How the parts, with these numbers of images, are mixed: as near to the weights as whole numbers come, one at least.

        >>> Source.model_validate({"gta5/train": 3, "synthia/all": 1}).mix([60, 40])
        Mix(sizes=(60, 40), draws=(75, 25))
        """
        total = sum(sizes)
        weights = [Fraction(size if weight is None else weight) for size, weight in zip(sizes, self.parts.values(), strict=True)]
        exact = [total * weight / sum(weights) for weight in weights]
        draws = [int(share) for share in exact]
        by_remainder = sorted(range(len(draws)), key=lambda part: draws[part] - exact[part])
        for part in by_remainder[: total - sum(draws)]:
            draws[part] += 1
        while 0 in draws:
            draws[draws.index(max(draws))] -= 1
            draws[draws.index(0)] += 1
        return Mix(tuple(sizes), tuple(draws))


def _is_positive(weight: Any) -> bool:
    return isinstance(weight, int | float) and 0 < weight < float("inf")
