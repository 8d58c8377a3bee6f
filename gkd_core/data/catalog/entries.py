"""One dataset in one condition, as a catalog file declares it: where its images and labels lie, and how they are shown."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from gkd_core.data.catalog.taxonomy import Declaration
from gkd_core.data.catalog.tiling import Tiling
from gkd_core.errors import DataError
from gkd_core.messages import shown
from gkd_core.untrusted import PlainName, objection_to

SPLIT = "{split}"
PATTERN = re.compile(r"([^*/]+/)*(\*{1,2}/)*[^*/]*\*[^*/]*")


class Protocol(Declaration):
    """How an image is resized for evaluation. Small images are never enlarged, so that real data gets
    the published size and the embedded world keeps its own.

    `scale` multiplies both sides, whole pixels kept; the result is then shrunk, its shape kept, to lie within `max_size`,
    (height, width) of an image that is wider than high, turned for one that is higher than wide. Scores are taken at the
    label's own size, or, with `resize_labels`, at the label's scaled by `scale`, before `max_size`. How pixels are resampled in
    these two steps: `gkd_core.data.files.shown`.
    """

    scale: float = Field(1.0, gt=0, le=1)
    max_size: tuple[int, int] | None = None
    resize_labels: bool = False

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (height, width) in pixels at which an image of this size is shown to the model."""
        height, width = self.scaled_size(height, width)
        if self.max_size is None:
            return height, width
        short, long = sorted(self.max_size)
        factor = min(1.0, short / min(height, width), long / max(height, width))
        return max(1, round(height * factor)), max(1, round(width * factor))

    def label_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (height, width) in pixels at which the labels of an image of this size are scored."""
        return self.scaled_size(height, width) if self.resize_labels else (height, width)

    @property
    def scaling(self) -> Literal["bilinear", "bicubic"]:
        """How the first step resamples; bilinear, as the second, where there is none."""
        return "bilinear" if self.scale == 1 else "bicubic"

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (height, width) in pixels after the first step alone, `scale`."""
        return max(1, int(height * self.scale)), max(1, int(width * self.scale))


class SplitRule(Declaration):
    """Which images belong to a split.

    `folders` stand in turn for `{split}` in the patterns. A list file keeps only the images that it names, one
    a line, by stem or by path, with or without the suffix of its file; it lies in the dataset's folder (`list_in_dataset`)
    or beside the catalog file (`list_in_catalog`). `count` is the number of images officially stated: plans use it
    where the images are not here, and `gkd data verify` compares it with what is there.
    """

    folders: tuple[str, ...] = ()
    list_in_dataset: str | None = None
    list_in_catalog: Path | None = None
    count: int | None = Field(None, gt=0)

    @field_validator("folders")
    @classmethod
    def _folders_below(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        for folder in folders:
            check_below(folder)
            if "*" in folder:
                raise ValueError(
                    f"'{shown(folder)}': a folder of a split is named, not matched; name each, or put the * in the pattern"
                )
        return folders

    @field_validator("list_in_dataset")
    @classmethod
    def _list_below(cls, path: str | None) -> str | None:
        return check_below(path)

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if self.list_in_dataset and self.list_in_catalog:
            raise ValueError("give one of list_in_dataset and list_in_catalog")
        return self

    def list_file(self, dataset_folder: Path) -> Path | None:
        """Path of the list file, or None where the split has none."""
        if self.list_in_dataset is not None:
            return dataset_folder / self.list_in_dataset
        return self.list_in_catalog


class DatasetEntry(Declaration):
    """One dataset in one condition: where its files lie below the data root, and what its labels mean.

    `images` and `labels` are patterns below `folder`, such as `gtFine/{split}/*/*_gtFine_labelIds.png`. An image
    and its label share what the wildcards stand for; what stands around the last one, such as `rgb_*.png` and `ss_*.png`, may
    differ. All but `*` is literal, brackets and `?` too. `any_suffix_case` takes `.JPG` for `.jpg`, in images and labels.
    """

    name: PlainName
    folder: str
    images: str
    labels: str | None = None
    encoding: str | None = None
    label_names: str | None = Field(None, description="JSON file in `folder` that numbers the names of a NamedEncoding.")
    splits: dict[PlainName, SplitRule] = Field(min_length=1)
    any_suffix_case: bool = False
    protocol: Protocol = Protocol()
    image_size: tuple[int, int] | None = Field(None, description="(height, width) of most images, in pixels, for plans.")
    tiles: Tiling | None = Field(None, description="Tiles that `gkd data prepare` cuts the pictures and their labels into.")
    bands: tuple[int, int, int] | None = Field(None, description="Channels, from 0, that become red, green and blue.")

    @field_validator("folder", "label_names")
    @classmethod
    def _below(cls, path: str | None) -> str | None:
        return path if path == "." else check_below(path)

    @field_validator("images", "labels")
    @classmethod
    def _well_formed(cls, pattern: str | None) -> str | None:
        if pattern is not None and not PATTERN.fullmatch(pattern):
            raise ValueError(
                f"'{pattern}' is not fixed folders, then folders *, then prefix*suffix, such as images/{{split}}/*/*_rgb.png"
            )
        return check_below(pattern)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.labels is None) != (self.encoding is None):
            raise ValueError("labels and encoding go together: give both, or neither for unlabelled images")
        if self.labels is not None and self.labels.count("*") != self.images.count("*"):
            raise ValueError("images and labels need the same number of *")
        for split, rule in self.splits.items():
            if (SPLIT in self.images) != bool(rule.folders):
                raise ValueError(f"split '{split}': folders are what {SPLIT} in the pattern stands for; give both or neither")
        return self

    @property
    def is_raw(self) -> bool:
        """Whether its files must be prepared before training can read them: cut into tiles, or bands of theirs taken."""
        return self.tiles is not None or self.bands is not None

    def split(self, split: str) -> SplitRule:
        """The rule of a split; `DataError` where there is none of that name."""
        if split not in self.splits:
            raise DataError(f"dataset '{self.name}' has no split '{shown(split)}'; there is: {', '.join(sorted(self.splits))}")
        return self.splits[split]

    def dataset_folder(self, root: Path) -> Path:
        """The folder that all of this entry's paths are relative to."""
        return root / self.folder

    def image_patterns(self, split: str) -> list[str]:
        """The image pattern, once for each folder of the split."""
        return [self.images.replace(SPLIT, folder) for folder in self.split(split).folders or ("",)]

    def label_patterns(self, split: str) -> list[str]:
        """The label pattern, once for each folder of the split, in the order of `image_patterns`; empty if unlabelled."""
        return (
            [] if self.labels is None else [self.labels.replace(SPLIT, folder) for folder in self.split(split).folders or ("",)]
        )

    def image_inputs(self, root: Path, split: str) -> list[Path]:
        """Files and folders that decide what the split's images are: a stage without labels depends on these alone."""
        base = self.dataset_folder(root)
        list_file = self.split(split).list_file(base)
        folders = [base / fixed_folder(pattern) for pattern in self.image_patterns(split)]
        return folders if list_file is None else [*folders, list_file]

    def label_inputs(self, root: Path, split: str) -> list[Path]:
        """Files and folders that decide what the split's labels are, beside `image_inputs`."""
        base = self.dataset_folder(root)
        folders = [base / fixed_folder(pattern) for pattern in self.label_patterns(split)]
        return folders if self.label_names is None else [*folders, base / self.label_names]


def check_below(path: str | None) -> str | None:
    """The path as it is; `ValueError` where it could lead out of its folder, or no system would take it."""
    reason = None if path is None else objection_to(path)
    if path is not None and reason:
        raise ValueError(f"'{shown(path)}': {reason}; expected a relative path")
    return path


def fixed_folder(pattern: str) -> str:
    """The folders of a pattern that come before its first wildcard: `a/b` of `a/b/*/c_*.png`."""
    parts = PurePosixPath(pattern).parts[:-1]
    first = next((index for index, part in enumerate(parts) if "*" in part), len(parts))
    return "/".join(parts[:first]) or "."


def key_of(pattern: str, relative: Path) -> str:
    """What the wildcards of `pattern` stand for in the path `relative`: folders below the fixed one, and the rest of the name."""
    prefix, suffix = name_around_wildcard(pattern)
    name = relative.name[len(prefix) : len(relative.name) - len(suffix)]
    # Text, as a path would take the name `.` of `._photo.png` for the folder itself.
    return "/".join((*relative.relative_to(fixed_folder(pattern)).parent.parts, name))


def path_of(pattern: str, key: str) -> str:
    """The path that a pattern gives an image or label of this key: what its wildcards stand for, folders included."""
    prefix, suffix = name_around_wildcard(pattern)
    folders, slash, name = key.rpartition("/")
    return f"{fixed_folder(pattern)}/{folders}{slash}{prefix}{name}{suffix}"


def name_around_wildcard(pattern: str) -> tuple[str, str]:
    """What a file's name begins and ends with: `rgb_` and `.png` of `a/*/rgb_*.png`."""
    prefix, _, suffix = PurePosixPath(pattern).name.partition("*")
    return prefix, suffix
