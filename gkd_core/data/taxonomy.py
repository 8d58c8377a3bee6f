"""Classes and label ids: what a pixel of a label file means, and the train id that it becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gkd_core.data.blobs import DataFile
from gkd_core.errors import DataError

IGNORE = 255
"""Train id of a pixel that takes no part in training or scoring."""

TrainId = Annotated[int, Field(ge=0, le=IGNORE)]
Channel = Annotated[int, Field(ge=0, le=255)]


class Declaration(BaseModel):
    """Frozen data read from a catalog file; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Taxonomy(Declaration):
    """The classes of a benchmark in the order of their train ids, each with its colour (red, green, blue)."""

    name: str
    classes: tuple[str, ...] = Field(min_length=1)
    colors: tuple[tuple[Channel, Channel, Channel], ...]

    @model_validator(mode="after")
    def _one_color_a_class(self) -> Self:
        if len(self.classes) != len(self.colors):
            raise ValueError(f"{len(self.classes)} classes but {len(self.colors)} colors")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class name appears twice")
        return self


class LabelEncoding(Declaration):
    """Label files of numbers with a fixed meaning: file id → train id. An id that is not in `ids` is an error."""

    taxonomy: str
    ids: dict[int, TrainId] = Field(min_length=1)


class NamedEncoding(Declaration):
    """Label files whose numbers are explained by a JSON file of the dataset, as in Mapillary Vistas.

    `classes` maps the names in that file to class names of the taxonomy; null is ignored.
    """

    taxonomy: str
    classes: dict[str, str | None] = Field(min_length=1)


def resolve_names(encoding: NamedEncoding, taxonomy: Taxonomy, names_file: Path) -> LabelEncoding:
    """Number the names of `encoding` by their place in `names_file` (`{"labels": [{"name": …}, …]}`).

    Raises:
        DataError: the file is missing or not of that form, or has a name that the encoding does not know.
    """
    names = _read_names(names_file)
    unknown = [name for name in names if name not in encoding.classes]
    if unknown:
        raise DataError(
            f"{names_file}: {len(unknown)} label names are not in the encoding, first '{unknown[0]}'; "
            f"expected the {len(encoding.classes)} names that the catalog lists (is this another version of the dataset?)"
        )
    train_ids = {name: index for index, name in enumerate(taxonomy.classes)}
    targets = [encoding.classes[name] for name in names]
    ids = {file_id: IGNORE if target is None else train_ids[target] for file_id, target in enumerate(targets)}
    return LabelEncoding(taxonomy=taxonomy.name, ids=ids)


def to_train_ids(label: np.ndarray, encoding: LabelEncoding, path: DataFile) -> np.ndarray:
    """Translate the file ids of `label`, an integer array of any shape, to train ids (uint8, same shape).

    `path` is the file that the array came from, for the message.

    Raises:
        DataError: the array holds an id outside the encoding.
    """
    if label.dtype.kind not in "iu":
        raise DataError(f"{path}: label values are {label.dtype}, expected integer ids")
    lowest, highest = min(encoding.ids), max(encoding.ids)
    known = np.zeros(highest - lowest + 1, dtype=bool)
    table = np.zeros(highest - lowest + 1, dtype=np.uint8)
    for file_id, train_id in encoding.ids.items():
        known[file_id - lowest], table[file_id - lowest] = True, train_id
    wide = label.astype(np.int64)
    inside = (wide >= lowest) & (wide <= highest)
    index = np.where(inside, wide - lowest, 0)
    valid = inside & known[index]
    if not valid.all():
        found = ", ".join(str(value) for value in np.unique(wide[~valid])[:10])
        raise DataError(
            f"{path}: label ids {found} are not in the encoding; allowed: {_ranges(encoding.ids)}. "
            "Correct the dataset's `encoding` in the catalog, or the label file"
        )
    return table[index]


def _read_names(names_file: Path) -> list[str]:
    try:
        tree: Any = json.loads(names_file.read_text(encoding="utf-8"))
        return [str(item["name"]) for item in tree["labels"]]
    except FileNotFoundError:
        raise DataError(f"{names_file}: no such file; it explains the label ids and comes with the dataset") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{names_file}: expected {{"labels": [{{"name": ...}}, ...]}} ({type(error).__name__}: {error})'
        ) from None


def _ranges(ids: dict[int, int]) -> str:
    """`0-18, 255` for the keys 0 … 18 and 255."""
    runs: list[list[int]] = []
    for value in sorted(ids):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
