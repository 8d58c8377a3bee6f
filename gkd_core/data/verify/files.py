"""What is wrong with one image file, whatever its content."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError

from gkd_core.data.files.pictures import opened
from gkd_core.data.verify.faults import Kind
from gkd_core.errors import DataError

Problem = tuple[Kind, str]


def unusable(path: Path) -> Problem | None:
    """Why a file should not even be opened in full: no file, empty, of no known format, or huge."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Kind.NOT_A_FILE, "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        if status.st_size == 0:
            return Kind.EMPTY_FILE, "0 bytes"
        with opened(path):
            return None
    except FileNotFoundError:
        return Kind.DANGLING_LINK, f"points to {path.readlink()}" if path.is_symlink() else "gone since the folder was listed"
    except PermissionError:
        return Kind.NO_PERMISSION, "file: permission denied"
    except Image.DecompressionBombError as error:
        return Kind.TOO_LARGE, str(error)
    except UnidentifiedImageError:
        return Kind.NOT_AN_IMAGE, _first_bytes(path)
    except OSError as error:
        return (Kind.LINK_LOOP, "links to itself") if error.errno == errno.ELOOP else (Kind.DAMAGED, str(error))
    except Exception as error:  # decoders give many kinds for a damaged header
        return Kind.DAMAGED, f"{type(error).__name__}: {error}"


def why_refused(path: Path, form: Kind, error: DataError) -> Problem:
    """Why a file was refused: it cannot be decoded, or else it is sound but of the wrong `form`."""
    cause = cannot_decode(path)
    return (form, str(error).removeprefix(f"{path}: ")) if cause is None else (Kind.DAMAGED, cause)


def cannot_decode(path: Path) -> str | None:
    """Why a file's pixels cannot be decoded; None where they can."""
    try:
        with opened(path) as picture:
            picture.load()
    except Exception as error:  # decoders give many kinds for damaged files
        return f"{error}" or type(error).__name__
    return None


def image_oddities(path: Path) -> Iterator[Problem]:
    """What is odd about an image that can be read."""
    with opened(path) as picture:
        deep = _bits(path, picture)
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    if deep > 8:
        yield Kind.IMAGE_MODE, f"{deep} bits a channel, of which the upper 8 alone would be read"
    if orientation in range(2, 9):
        yield Kind.EXIF_ROTATION, f"EXIF orientation {orientation}"
    yield from _checksums(path)


def label_oddities(path: Path) -> Iterator[Problem]:
    """What is odd about a label that can be read."""
    with opened(path) as picture:
        lossy = picture.format in ("JPEG", "MPO")
        bits = _bits(path, picture)
        widened = picture.mode == "L" and bits < 8
    if lossy:
        yield Kind.LOSSY_LABEL, "JPEG, whatever its name says"
    if widened:
        yield Kind.LABEL_MODE, f"{bits}-bit grey, which is read as multiples of {255 // (2**bits - 1)}; store 8 bits a pixel"
    yield from _checksums(path)


def _bits(path: Path, picture: Image.Image) -> int:
    """Bits a channel as stored, which Pillow's mode does not tell: it widens shallow PNGs and narrows deep ones."""
    if picture.format == "PNG":
        with path.open("rb") as stream:
            return stream.read(25)[24]  # of the header, which is always the first chunk
    tags: Any = getattr(picture, "tag_v2", {})
    return max(tags.get(258, (8,)))  # TIFF: BitsPerSample


def _checksums(path: Path) -> Iterator[Problem]:
    """PNG carries checksums, which decoding alone does not look at."""
    with opened(path) as picture:
        if picture.format != "PNG":
            return
        try:
            picture.verify()
        except Exception as error:
            yield Kind.DAMAGED, f"a checksum does not fit ({error})"


def _first_bytes(path: Path) -> str:
    if path.name.startswith("._"):
        return "a macOS resource file, which belongs to no dataset"
    with path.open("rb") as stream:
        return f"begins with {stream.read(12)!r}"
