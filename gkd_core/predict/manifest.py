"""What the manifest of a bundle says: all that it takes to use a student, without recipe, catalog or project.

A manifest may come from anywhere. Its names are plain, its digests are digests and its numbers have bounds, so that neither a
path nor the room that it asks for needs trust.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.catalog.taxonomy import IGNORE, Channel
from gkd_core.predict.known import KnownImages
from gkd_core.predict.latency import Latency
from gkd_core.records import Record, Score, SegmentorCheckpoint, StudentSize
from gkd_core.settings import EvaluateSettings
from gkd_core.untrusted import LABEL, Label, PlainName, Sha256

LARGEST_FILE = 64 * 2**30  # bytes
LARGEST_ID = 2**16 - 1  # that a PNG of one channel can hold
LARGEST_COLOR = 2**24 - 1

Side = Annotated[int, Field(ge=1, le=2**14)]
Scale = Annotated[float, Field(ge=1 / 16, le=16)]
Count = Annotated[int, Field(ge=1, le=2**12)]
Licence = Annotated[str, Field(min_length=1, max_length=300)]


class BundleFile(Record):
    """One file of a bundle, with its size in bytes and its digest."""

    name: PlainName
    size: int = Field(ge=0, le=LARGEST_FILE)
    sha256: Sha256


class View(Record):
    """How the student sees an image, as its scores were measured. Sizes are (height, width) in pixels.

    `protocol` applies first: the size at which images are shown. `threads` are those of the measurement: on a CPU the last bit of
    a sum depends on how many there are.
    """

    protocol: Protocol = Protocol()
    window: tuple[Side, Side]
    stride: tuple[Side, Side]
    batch_size: Count = 8
    scales: tuple[Scale, ...] = Field((1.0,), min_length=1, max_length=16)
    flip: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: Count = 1

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if any(step > side for step, side in zip(self.stride, self.window, strict=True)):
            raise ValueError(f"stride {self.stride} exceeds window {self.window}")
        if self.protocol.max_size is not None and not all(0 < side <= 2**14 for side in self.protocol.max_size):
            raise ValueError(f"protocol.max_size {self.protocol.max_size}: no size of an image")
        return self

    @classmethod
    def of(cls, settings: EvaluateSettings, protocol: Protocol, threads: int) -> Self:
        """The view of a measurement by these settings."""
        shared = settings.model_dump(include={"window", "stride", "batch_size", "scales", "flip", "precision"})
        return cls(protocol=protocol, threads=threads, **shared)

    def settings(self, images: int = 1) -> EvaluateSettings:
        """The settings of such a measurement; where more images are seen at once, so are more windows."""
        shared = self.model_dump(exclude={"protocol", "threads", "batch_size"})
        return EvaluateSettings(batch_size=max(self.batch_size, images), **shared)


class OwnIds(Record):
    """What a dataset's own label files call the classes, in the order of the train ids; null where it has no such class.

    `form` color: ids are colours, 0xRRGGBB.
    """

    dataset: PlainName
    form: Literal["index", "color"]
    values: tuple[int | None, ...]

    @model_validator(mode="after")
    def _representable(self) -> Self:
        largest = LARGEST_COLOR if self.form == "color" else LARGEST_ID
        if any(value is not None and not 0 <= value <= largest for value in self.values):
            raise ValueError(f"ids reach from 0 to {largest}")
        return self


class Licences(Record):
    """Under which the student is shared, and its teacher's weights are; null where there was no teacher."""

    student: Licence
    teacher: Licence | None = None


class Program(Record):
    """The student as a program for another runtime, a file of the bundle. Sizes are in pixels.

    Attributes:
        takes: logits-of-floats: float32 (B, 3, H, W) in 0..1 to float32 (B, K, H, W); classes-of-bytes: uint8 (B, H, W, 3) to
            train ids, uint8 (B, H, W). Normalisation is inside, either way.
        size: (height, width) that it takes alone, because of `fixed_because`; null where it takes any whose sides are multiples
            of `multiple` and `smallest` at least.
        checked: the figures by which it was held against PyTorch before it got its name.
    """

    format: Literal["onnx", "pt2"]
    file: PlainName
    opset: int | None = Field(None, ge=1, le=1000)
    takes: Literal["logits-of-floats", "classes-of-bytes"]
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    size: tuple[Side, Side] | None = None
    fixed_because: Label | None = None
    multiple: Side = 1
    smallest: Side = 1
    checked: dict[PlainName, float] = Field(default_factory=dict)


class Bundle(Record):
    """A student with all that it takes to use it.

    Attributes:
        model: the record of stage two; its `classes` are the bundle's, and its `weights` one of `files`.
        colors: (red, green, blue) of each class.
        mean, std: normalisation of images in 0..1, by channel; it is part of the network.
        ids: the source's own label ids; null where they are not known.
        scores: what was measured of it; empty where nothing was.
        size: parameters and FLOPs of it, and of its teacher in its place; null where they were not counted.
        latency: what it takes, and another model beside it; null where that was not measured.
        programs: exported programs among the files.
        known: the statistics, among the files, by which images are held against those it knows; null where there are none.
        files: every file beside the manifest.
        version: of the program that wrote it.
    """

    remedy: ClassVar[str] = "make the bundle again with `gkd bundle`, or fetch it again"
    kind: Literal["bundle"] = "bundle"
    form: Literal[1] = 1
    version: Annotated[str, Field(max_length=100)]
    model: SegmentorCheckpoint
    colors: tuple[tuple[Channel, Channel, Channel], ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    view: View
    ids: OwnIds | None = None
    licences: Licences
    scores: tuple[Score, ...] = ()
    size: StudentSize | None = None
    latency: Latency | None = None
    programs: tuple[Program, ...] = ()
    known: KnownImages | None = None
    files: tuple[BundleFile, ...]

    @property
    def classes(self) -> tuple[Label, ...]:
        """What the classes are called, in the order of their train ids."""
        return self.model.classes

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        classes = self.model.classes
        if not 0 < len(classes) <= IGNORE or len(set(classes)) < len(classes):
            raise ValueError(f"{len(classes)} classes; expected 1 to {IGNORE}, each once")
        if not all(LABEL.fullmatch(name) and len(name) <= 200 for name in classes):
            raise ValueError("a class has a name that no table or page can show")
        if len(self.colors) != len(classes) or (self.ids is not None and len(self.ids.values) != len(classes)):
            raise ValueError(f"{len(classes)} classes; expected a colour and an id of each")
        names = [file.name for file in self.files]
        if len({name.casefold() for name in names}) < len(names):
            raise ValueError("a file is listed twice")
        statistics = set() if self.known is None else {self.known.file}
        lacking = {self.model.weights, *(program.file for program in self.programs), *statistics} - set(names)
        if lacking:
            raise ValueError(f"{min(lacking)} is not among the files")
        return self
