"""What stages hand to each other: small frozen records, written as JSON beside the tensors that they describe."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gkd_core.documents import DocumentError, parse_json, read_small
from gkd_core.errors import GkdError
from gkd_core.files import atomic_file
from gkd_core.messages import one_line, shown
from gkd_core.settings import EncoderSettings, FeatureNorm, Mask2FormerSettings, PictureKind
from gkd_core.untrusted import PlainName, Sha256

MANIFEST = "manifest.json"
LARGEST_RECORD = 64 * 2**20  # bytes

Whole = Annotated[int, Field(ge=0, le=2**50)]
Amount = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]


class Record(BaseModel):
    """A frozen value object with a file form.

    `remedy` is what to do about a file that is none, as messages say it.
    """

    remedy: ClassVar[str] = "run its stage again"
    model_config = ConfigDict(frozen=True, extra="forbid")

    def write(self, path: Path) -> None:
        """Write as indented JSON, atomically."""
        with atomic_file(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read back what `write` wrote.

        Raises:
            GkdError: the file is missing or is not such a record.
        """
        try:
            content = read_small(path, LARGEST_RECORD)
            parse_json(content, LARGEST_RECORD)  # what pydantic lets pass: NaN, a key given twice
            return cls.model_validate_json(content)
        except FileNotFoundError:
            raise GkdError(f"{path}: no such file; run the stage that writes it first (gkd plan lists them)") from None
        except OSError as error:
            raise GkdError(f"{path}: cannot be read ({error.strerror or error})") from None
        except DocumentError as error:
            raise GkdError(f"{path}: not a {cls.__name__} ({error}); {cls.remedy}") from None
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise GkdError(
                f"{path}: not a {cls.__name__} of this version ({error.error_count()} fields differ, such as {shown(key)}: "
                f"{one_line(first['msg'])}); {cls.remedy}"
            ) from None


def kind_of(folder: Path) -> str | None:
    """What the manifest of a folder says that it describes; None where there is none, or it says nothing.

    Raises:
        GkdError: the manifest is damaged.
    """
    manifest = folder / MANIFEST
    try:
        content = parse_json(read_small(manifest, LARGEST_RECORD), LARGEST_RECORD)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise GkdError(f"{manifest}: cannot be read ({error.strerror or error})") from None
    except DocumentError as error:
        raise GkdError(f"{manifest}: not JSON ({error}); make what it describes again, or fetch it again") from None
    kind = content.get("kind") if isinstance(content, dict) else None
    return kind if isinstance(kind, str) else None


class DatasetVersion(Record):
    """One dataset split as `prepare-data` saw it."""

    dataset: str
    split: str
    folder: str
    images: int
    labels: int | None


class DataManifest(Record):
    """All dataset splits that a run reads."""

    kind: Literal["data"] = "data"
    versions: tuple[DatasetVersion, ...]


class FieldImages(Record):
    """Images of the field that joined the unlabelled proxy of stage 1a: how many, and a digest of their names and contents."""

    images: int
    sha256: Sha256


class EncoderCheckpoint(Record):
    """An encoder's weights, with all that is needed to build it again.

    `objective_sha256` is of the student with its heads, which is stored next to it where a later step continues from it.
    `field` are the images that joined the proxy, in this step or before it; null where none did.
    """

    kind: Literal["encoder"] = "encoder"
    encoder: EncoderSettings
    weights: PlainName
    sha256: Sha256
    stage: str
    method: str
    seed: int
    updates: int
    objective_sha256: Sha256 | None = None
    field: FieldImages | None = None


class SegmentorCheckpoint(Record):
    """An encoder and its decoder, trained on one source domain. `mask2former` counts where that is the decoder.

    `feature_norm` is of the maps that the decoder was trained on; records that do not state it are of versions that normed them.

    `teacher` is the architecture that the student learnt from; null where there was none, or where it is not known.
    `field` are the images that joined the proxy of stage 1a; null where none did.
    """

    kind: Literal["segmentor"] = "segmentor"
    encoder: EncoderSettings
    decoder: str
    decoder_width: int
    mask2former: Mask2FormerSettings = Mask2FormerSettings()
    feature_norm: FeatureNorm = "final"
    taxonomy: str
    classes: tuple[str, ...]
    source: str
    weights: PlainName
    sha256: Sha256
    method: str
    seed: int
    updates: int
    encoder_frozen: bool
    teacher: str | None = None
    label_fraction: float = 1.0
    field: FieldImages | None = None


class ScoreProtocol(Record):
    """How a score was measured. Sizes are (height, width) in pixels.

    An image is scaled by `scale`, resampled as `scaling` says, and then shrunk into `max_size` (null: no bound) bilinearly;
    before recipe version 3 both were one bilinear step. Labels are scored at their own size, or, with `labels_resized`, at that
    times `scale`. It is then seen at each of `scales` and, with `flip`, mirrored too; the mean
    of the `averaged` decides.
    """

    scale: float
    scaling: Literal["bilinear", "bicubic"] = "bilinear"
    max_size: tuple[int, int] | None
    labels_resized: bool
    window: tuple[int, int]
    stride: tuple[int, int]
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    averaged: Literal["logits"] = "logits"
    precision: str = "fp32"
    classes: int
    selection: str


class Score(Record):
    """The mIoU of one student on one domain, in percent, and the IoU of each class (null where it has no pixels).

    `source` is the dataset learnt from, `label_fraction` the share of its labels, `dataset` the `dataset/split` measured on.
    `encoder_frozen` says whether stage two left the encoder as it was (null: not recorded). `field` are images that joined the
    proxy: a domain that they show is no unseen one.
    """

    method: str
    teacher: str
    student: str
    seed: int
    encoder_frozen: bool | None = None
    benchmark: str
    source: str
    domain: str
    dataset: str
    in_domain: bool
    miou: float
    class_iou: dict[str, float | None]
    images: int
    protocol: ScoreProtocol
    label_fraction: float = 1.0
    field: FieldImages | None = None


class ScoreTable(Record):
    """Scores of one or more students."""

    kind: Literal["scores"] = "scores"
    scores: tuple[Score, ...]


class Picture(Record):
    """One drawn picture: a PNG beside the record.

    `domain` is the `dataset/split` that it shows; null where it shows several. `values` are the numbers in it, each a `measure`:
    of an image by its name, or of a `dataset/split`; null where there is nothing to measure.
    """

    file: PlainName
    kind: PictureKind
    title: str
    domain: str | None
    measure: str
    values: dict[str, float | None]


class PictureList(Record):
    """Pictures of one source's student."""

    kind: Literal["pictures"] = "pictures"
    method: str
    student: str
    seed: int
    source: str
    pictures: tuple[Picture, ...]


class StudentSize(Record):
    """What a student takes: parameters with its decoder, FLOPs of one evaluation window, bytes of its safetensors.

    `window` is (height, width) in pixels. The teacher's figures are of its encoder under the student's decoder, as what would
    answer in the student's place; null where there is no teacher, where it is the student, or where it cannot see the window.
    """

    parameters: Whole
    flops: Amount
    window: tuple[Whole, Whole]
    weights_bytes: Whole
    teacher_parameters: Whole | None = None
    teacher_flops: Amount | None = None


def described_field(images: Sequence[Path], folder: Path) -> FieldImages:
    """Images below a folder, as records state them."""
    facts = hashlib.sha256()
    for path in images:
        facts.update(f"{sha256_of(path)} {path.relative_to(folder).as_posix()}\n".encode("utf-8", "surrogateescape"))
    return FieldImages(images=len(images), sha256=facts.hexdigest())


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
