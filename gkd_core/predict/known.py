"""How far an image is from those that a student knows: Mahalanobis distances of its pooled tokens, and the statistics for them.

Known images are described by the mean and the covariance of one vector an image (Lee et al. 2018). They are gathered in one
pass, in memory that depends on the vector's length alone, and no image of theirs can be read out of what is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gkd_core.errors import DataError, WeightsError
from gkd_core.models.tensor_files import read_checked, write_tensors
from gkd_core.records import MANIFEST, Record
from gkd_core.untrusted import Label, PlainName, Sha256

FILE = "known.safetensors"
PartName = Literal["source", "proxy", "field"]
PARTS: tuple[PartName, ...] = ("source", "proxy", "field")
LEAST = 2  # images that have a covariance
CONSTANT = 1e-12  # of a channel's square: a variance below it is what rounding leaves
KINDS = ("mean", "whitening", "held_out")


class Distance(NamedTuple):
    """How far an image is from some that are known.

    Attributes:
        value: 1 where it is as far as known images that the statistics never saw are in the median, 2 where twice as far.
        percentile: the share of these that are no farther, in percent.
    """

    value: float
    percentile: float


class KnownPart(Record):
    """What the statistics of one part are of.

    Attributes:
        images: the datasets that the mean and the covariance are of, `count` images of them.
        held_out: the datasets of the `held` images by which distances are judged; the statistics never saw these.
        shrinkage: how much of the covariance was replaced by that of independent channels, 0..1.
    """

    name: PartName
    images: Label
    count: int = Field(ge=LEAST, le=2**31)
    held_out: Label
    held: int = Field(ge=1, le=2**31)
    shrinkage: float = Field(ge=0, le=1)


class KnownImages(Record):
    """What the file of statistics of a bundle is of; source first."""

    file: PlainName
    parts: tuple[KnownPart, ...] = Field(min_length=1, max_length=len(PARTS))

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        names = [part.name for part in self.parts]
        if names != [name for name in PARTS if name in names] or names[0] != PARTS[0]:
            raise ValueError(f"parts {', '.join(names)}; expected {' and then '.join(PARTS)}, each once, the first always")
        return self


class Moments:
    """Mean and covariance of vectors of `width` numbers that come a few at a time (Chan, Golub and LeVeque 1983)."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Count vectors (n, width)."""
        values = rows.detach().to("cpu", torch.float64)
        if not len(values):
            return
        mean, total = values.mean(dim=0), self.count + len(values)
        centred, shift = values - mean, mean - self.mean
        self._scatter += centred.T @ centred + torch.outer(shift, shift) * (self.count * len(values) / total)
        self.mean = self.mean + shift * (len(values) / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """The covariance (width, width), the sum of squares divided by the number of vectors."""
        return self._scatter / max(1, self.count)


def oracle_shrinkage(covariance: Tensor, count: int) -> float:
    """The share of the identity, times the mean variance, that brings a covariance (p, p) of so many vectors nearest to the true
    one: the oracle approximating shrinkage of Chen et al. (2010), for p well above 1 as scikit-learn has it. It needs the
    covariance alone, and so no second pass."""
    width = len(covariance)
    spread, level = float(covariance.square().mean()), float(covariance.trace() / width) ** 2
    beside = (count + 1) * (spread - level / width)
    return 1.0 if beside <= 0 else min(1.0, (spread + level) / beside)


def whitening_of(covariance: Tensor, mean: Tensor, count: int) -> tuple[Tensor, float]:
    """The matrix W (p, p) by which |W (x - mean)| is the Mahalanobis distance of x under the shrunk covariance, and the
    shrinkage.

    Channels are brought to variance 1 first, so that those of large values do not decide how much of the others is replaced.

    Raises:
        DataError: no channel varies.
    """
    variances = covariance.diagonal()
    varies = variances > CONSTANT * (mean.square() + variances.max())
    if not varies.any():
        raise DataError("the images all look the same to the student; give images that differ")
    scale = torch.where(varies, variances, 1.0).sqrt()
    correlation = covariance / torch.outer(scale, scale)
    shrinkage = oracle_shrinkage(correlation, count)
    level = correlation.trace() / len(correlation)
    shrunk = (1 - shrinkage) * correlation + shrinkage * level * torch.eye(len(correlation), dtype=torch.float64)
    lower = torch.linalg.cholesky(shrunk)
    return torch.linalg.solve_triangular(lower, torch.diag(1 / scale), upper=False).contiguous(), shrinkage


def mahalanobis(rows: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """The distances (n,) of vectors (n, C) from a mean (C,), under the covariance whose `whitening_of` is given."""
    return (rows.detach().to("cpu", torch.float64) - mean).matmul(whitening.T).norm(dim=1)


@dataclass(frozen=True, eq=False)
class Part:
    """The images of one part, as statistics of vectors of C numbers, in double precision on the CPU.

    Attributes:
        mean: (C,).
        whitening: (C, C): the distance of a vector x is |whitening (x - mean)|.
        held_out: the distances of images that the statistics never saw, ascending (m,).
    """

    record: KnownPart
    mean: Tensor
    whitening: Tensor
    held_out: Tensor

    def distances(self, rows: Tensor) -> list[Distance]:
        """How far vectors (n, C) are."""
        found = mahalanobis(rows, self.mean, self.whitening)
        farther = torch.searchsorted(self.held_out, found, right=True)
        values, shares = found / self.held_out.median(), 100 * farther.double() / len(self.held_out)
        return [Distance(*both) for both in zip(values.tolist(), shares.tolist(), strict=True)]

    @property
    def own(self) -> list[float]:
        """The distances of the held-out images themselves, in the unit of `Distance.value`."""
        found: list[float] = (self.held_out / self.held_out.median()).tolist()
        return found


@dataclass(frozen=True, eq=False)
class Known:
    """All that a student knows, by part; the source always."""

    parts: Mapping[PartName, Part]

    def distances(self, rows: Tensor) -> list[dict[PartName, Distance]]:
        """How far vectors (n, C) are from each part."""
        found = {name: part.distances(rows) for name, part in self.parts.items()}
        return [{name: each[index] for name, each in found.items()} for index in range(len(rows))]

    def nearest(self, rows: Tensor) -> list[float]:
        """How far vectors (n, C) are from the part that is nearest to each, in the unit of `Distance.value`."""
        return [min(distance.value for distance in each.values()) for each in self.distances(rows)]

    def record(self) -> KnownImages:
        """What it is of, as a manifest says it."""
        return KnownImages(file=FILE, parts=tuple(part.record for part in self.parts.values()))


class Named(NamedTuple):
    """Vectors of images, a few at a time, each (n, C), and what the images are called."""

    name: str
    rows: Iterable[Tensor]


def part_of(name: PartName, images: Named, held_out: Named, width: int) -> Part:
    """The statistics of images, and the distances of others from them. Each is gone through once, the images first.

    Args:
        width: C.

    Raises:
        DataError: there are too few images, or all look the same.
    """
    moments = Moments(width)
    for rows in images.rows:
        moments.add(rows)
    if moments.count < LEAST:
        raise DataError(f"{images.name}: {moments.count} images; statistics need {LEAST} at least")
    try:
        whitening, shrinkage = whitening_of(moments.covariance, moments.mean, moments.count)
    except DataError as error:
        raise DataError(f"{images.name}: {error}") from None
    found = [mahalanobis(rows, moments.mean, whitening) for rows in held_out.rows]
    held = torch.cat(found).sort().values if found else torch.zeros(0)
    if not len(held) or not held.median() > 0:
        raise DataError(f"{held_out.name}: no image to judge distances by; give images that are not among {images.name}")
    record = KnownPart(name=name, images=images.name, count=moments.count, held_out=held_out.name, held=len(held),
                       shrinkage=shrinkage)  # fmt: skip
    return Part(record, moments.mean, whitening, held)


def write_known(known: Known, path: Path) -> None:
    """Write the statistics as safetensors."""
    write_tensors({f"{name}.{kind}": getattr(part, kind) for name, part in known.parts.items() for kind in KINDS}, path)


def read_known(path: Path, record: KnownImages, sha256: Sha256, width: int) -> Known:
    """Statistics as `write_known` left them, once they are seen to be those of a record, for vectors of `width` numbers.

    Raises:
        WeightsError: the file is missing or damaged, or holds other tensors.
    """
    tensors = read_checked(path, sha256, str(path.parent / MANIFEST))
    expected = {f"{part.name}.{kind}": shape for part in record.parts for kind, shape in _shapes(part, width).items()}
    for name in sorted(expected.keys() | tensors.keys()):
        found = tensors.get(name)
        wrong = None
        if found is None or name not in expected:
            wrong = f"{name} {'is not there' if found is None else 'is of no part that the manifest lists'}"
        elif tuple(found.shape) != expected[name] or found.dtype != torch.float64:
            wrong = f"{name} is {found.dtype} {tuple(found.shape)}, expected torch.float64 {expected[name]}"
        elif not found.isfinite().all():
            wrong = f"{name} holds numbers that are not finite"
        elif name.endswith(".held_out") and not (found[0] >= 0 and (found.diff() >= 0).all() and found.median() > 0):
            wrong = f"{name} is no ascending list of distances"
        if wrong is not None:
            raise WeightsError(f"{path}: {wrong}; fetch the bundle again, or make it again")
    return Known({part.name: Part(part, *(tensors[f"{part.name}.{kind}"] for kind in KINDS)) for part in record.parts})


def _shapes(part: KnownPart, width: int) -> dict[str, tuple[int, ...]]:
    return dict(zip(KINDS, ((width,), (width, width), (part.held,)), strict=True))
