"""Classes and label ids: what a pixel of a label file means, and the train id that it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from gkd_core.data.files.blobs import DataFile
from gkd_core.documents import DocumentError, parse_json, read_small
from gkd_core.errors import DataError
from gkd_core.messages import one_line, shown
from gkd_core.untrusted import Label, PlainName

IGNORE = 255
"""Train id of a pixel that takes no part in training or scoring."""

TrainId = Annotated[int, Field(ge=0, le=IGNORE)]
FileId = Annotated[int, Field(ge=-(2**31), lt=2**32)]  # what a pixel can hold, whatever its sign
Channel = Annotated[int, Field(ge=0, le=255)]
HexColor = Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]
Form = Literal["index", "first-channel", "color"]

WIDEST_TABLE = 2**16


class Declaration(BaseModel):
    """Frozen data read from a catalog file; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Taxonomy(Declaration):
    """The classes of a benchmark in the order of their train ids, each with its colour (red, green, blue)."""

    name: PlainName
    classes: tuple[Label, ...] = Field(min_length=1)
    colors: tuple[tuple[Channel, Channel, Channel], ...]

    @model_validator(mode="after")
    def _one_color_a_class(self) -> Self:
        if len(self.classes) != len(self.colors):
            raise ValueError(f"{len(self.classes)} classes but {len(self.colors)} colors")
        if len(self.classes) > IGNORE:
            raise ValueError(
                f"{len(self.classes)} classes; at most {IGNORE} are possible: a train id is one byte, and {IGNORE} means ignored"
            )
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class name appears twice")
        return self


class LabelEncoding(Declaration):
    """Label files of numbers with a fixed meaning: file id → train id. An id that is not in `ids` is an error.

    `form` says where a file has its ids. `index`: in its only channel; of a picture with a palette, the index. `first-channel`:
    in the first of its channels, whatever the others hold. `color`: the colour itself, as 0xRRGGBB; `ColorEncoding` gives these.
    """

    taxonomy: str
    ids: dict[FileId, TrainId] = Field(min_length=1)
    form: Form = "index"

    def text_of(self, value: int) -> str:
        """A value of a label file as a person writes it: `7`, or `#ff00aa`."""
        return f"#{value:06x}" if self.form == "color" else str(value)


class NamedEncoding(Declaration):
    """Label files whose numbers are explained by a JSON file of the dataset, as in Mapillary Vistas.

    `classes` maps the names in that file to class names of the taxonomy; null is ignored.
    """

    taxonomy: str
    classes: dict[str, str | None] = Field(min_length=1)


class ColorEncoding(Declaration):
    """Label files whose colours carry the meaning, as ISPRS draws them: colour → class name; null is ignored.

    A colour is written `#rrggbb` and must be met exactly.
    """

    taxonomy: str
    colors: dict[HexColor, str | None] = Field(min_length=1)


def _kind_of(item: object) -> str | None:
    """Which encoding a declaration is, by the table that it has."""
    if isinstance(item, Declaration):
        return type(item).__name__
    tables = {"ids": "LabelEncoding", "classes": "NamedEncoding", "colors": "ColorEncoding"}
    kinds = [kind for key, kind in tables.items() if isinstance(item, dict) and key in item]
    return kinds[0] if len(kinds) == 1 else None


Encoding = Annotated[
    Annotated[LabelEncoding, Tag("LabelEncoding")]
    | Annotated[NamedEncoding, Tag("NamedEncoding")]
    | Annotated[ColorEncoding, Tag("ColorEncoding")],
    Discriminator(
        _kind_of,
        custom_error_type="encoding",
        custom_error_message="give exactly one of ids (numbers), classes (names of a JSON file) and colors",
    ),
]
"""Any way in which label files carry classes, as a catalog declares it."""


def resolve_names(encoding: NamedEncoding, taxonomy: Taxonomy, names_file: Path) -> LabelEncoding:
    """Number the names of `encoding` by their place in `names_file` (`{"labels": [{"name": …}, …]}`).

    Raises:
        DataError: the file is missing or not of that form, or has a name that the encoding does not know.
    """
    names = _read_names(names_file)
    unknown = [name for name in names if name not in encoding.classes]
    if unknown:
        raise DataError(
            f"{names_file}: {len(unknown)} label names are not in the encoding, first '{shown(unknown[0])}'; "
            f"expected the {len(encoding.classes)} names that the catalog lists (is this another version of the dataset?)"
        )
    ids = {file_id: _train_id(encoding.classes[name], taxonomy) for file_id, name in enumerate(names)}
    return LabelEncoding(taxonomy=taxonomy.name, ids=ids)


def resolve_colors(encoding: ColorEncoding, taxonomy: Taxonomy) -> LabelEncoding:
    """The encoding with colours as numbers, 0xRRGGBB, and classes as train ids."""
    ids = {int(color[1:], 16): _train_id(name, taxonomy) for color, name in encoding.colors.items()}
    return LabelEncoding(taxonomy=taxonomy.name, ids=ids, form="color")


def to_train_ids(label: np.ndarray, encoding: LabelEncoding, path: DataFile) -> np.ndarray:
    """Translate the file ids of `label`, an integer array of any shape, to train ids (uint8, same shape).

    `path` is the file that the array came from, for the message.

    Raises:
        DataError: the array holds an id outside the encoding.
    """
    if label.dtype.kind not in "iu":
        raise DataError(f"{path}: label values are {label.dtype}, expected integer ids")
    known, train_ids = _look_up(label, encoding)
    if not known.all():
        kind = "colours" if encoding.form == "color" else "ids"
        found = ", ".join(list(unknown_values(label, encoding))[:10])
        raise DataError(
            f"{path}: label {kind} {found} are not in the encoding; allowed: {_allowed(encoding)}. "
            "Correct the dataset's `encoding` in the catalog, or the label file"
        )
    return train_ids


def unknown_values(label: np.ndarray, encoding: LabelEncoding) -> dict[str, int]:
    """Values of `label`, an integer array of any shape, that the encoding does not have, as text in ascending order, each with
    the number of its pixels: `{"7": 12}`, or `{"#ff00aa": 12}` where colours are encoded."""
    known, _ = _look_up(label, encoding)
    values, counts = np.unique(label[~known], return_counts=True)
    return {encoding.text_of(int(value)): int(count) for value, count in zip(values, counts, strict=True)}


def _look_up(label: np.ndarray, encoding: LabelEncoding) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels have a train id (bool), and the train id (uint8, without meaning for the others)."""
    wide = label.astype(np.int64)
    lowest, highest = min(encoding.ids), max(encoding.ids)
    inside = (wide >= lowest) & (wide <= highest)
    if highest - lowest >= WIDEST_TABLE:
        keys = np.array(sorted(encoding.ids), dtype=np.int64)
        table = np.array([encoding.ids[int(key)] for key in keys], dtype=np.uint8)
        index = np.searchsorted(keys, np.where(inside, wide, lowest))
        return inside & (keys[index] == wide), table[index]
    known = np.zeros(highest - lowest + 1, dtype=bool)
    table = np.zeros(highest - lowest + 1, dtype=np.uint8)
    for file_id, train_id in encoding.ids.items():
        known[file_id - lowest], table[file_id - lowest] = True, train_id
    index = np.where(inside, wide - lowest, 0)
    return inside & known[index], table[index]


def _train_id(name: str | None, taxonomy: Taxonomy) -> int:
    return IGNORE if name is None else taxonomy.classes.index(name)


def _read_names(names_file: Path) -> list[str]:
    try:
        tree = parse_json(read_small(names_file))
        names = [str(item["name"]) for item in tree["labels"]]
    except FileNotFoundError:
        raise DataError(f"{names_file}: no such file; it explains the label ids and comes with the dataset") from None
    except (OSError, DocumentError, LookupError, TypeError) as error:
        raise DataError(
            f'{names_file}: expected {{"labels": [{{"name": ...}}, ...]}} ({type(error).__name__}: {one_line(error)})'
        ) from None
    if not names:
        raise DataError(f'{names_file}: names no label; expected {{"labels": [{{"name": ...}}, ...]}}')
    return names


def _allowed(encoding: LabelEncoding) -> str:
    """What a label file may hold: `0-18, 255` for the ids 0 … 18 and 255, or a list of colours."""
    if encoding.form == "color":
        return ", ".join(encoding.text_of(value) for value in sorted(encoding.ids))
    runs: list[list[int]] = []
    for value in sorted(encoding.ids):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
