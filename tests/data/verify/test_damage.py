"""Damage of every kind, all of it done to one set of datasets, is found in one run; where all is well nothing is."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gkd_core.data.verify.faults import Kind, Report, printable

Check = Callable[..., Report]
Damage = Callable[[Path], None]


def photo(index: int) -> str:
    return f"depot/photos/north/{'ab'[index % 2]}/{index:02d}_photo.png"


def mask(index: int) -> str:
    return f"depot/masks/north/{'ab'[index % 2]}/{index:02d}_mask.png"


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def flip_a_checksum(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") - 4 + 8 + struct.unpack(">I", content[content.index(b"IDAT") - 4 :][:4])[0]] ^= 1
    path.write_bytes(content)


def replace_by(value: object, **options: object) -> Damage:
    """Damage that puts another picture (an array, or a Pillow image) in a file's place, in its format or one given."""

    def damage(path: Path) -> None:
        picture = value if isinstance(value, Image.Image) else Image.fromarray(np.asarray(value))
        picture.save(path, **options)

    return damage


def write(content: bytes) -> Damage:
    return lambda path: (path.write_bytes(content), None)[1]


def rename(new: str | bytes) -> Damage:
    return lambda path: os.rename(path, os.path.join(os.path.dirname(os.fsencode(path)), os.fsencode(new)))


def link_to(target: str) -> Damage:
    def damage(path: Path) -> None:
        if path.exists():
            path.unlink()
        path.symlink_to(target)

    return damage


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def deny(path: Path) -> None:
    path.chmod(0)


def turn_by_exif(path: Path) -> None:
    picture = Image.open(path)
    tags = Image.Exif()
    tags[0x0112] = 6
    picture.save(path, exif=tags)


def raw_png(height: int, width: int, bits: int, colour: int, rows: bytes) -> Damage:
    """A PNG of any header, which Pillow would not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return write(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def append(line: str) -> Damage:
    return lambda path: (path.write_text(path.read_text() + line), None)[1]


def mirror(source: str, target: str) -> Damage:
    return lambda root: Image.open(root / source).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / target)


def differ_by_case(root: Path) -> None:
    for folder, ending in (("photos", "photo"), ("masks", "mask")):
        for source, name in (("40", "x"), ("42", "X")):
            mirror(f"depot/{folder}/south/a/{source}_{ending}.png", f"depot/{folder}/north/a/{name}_{ending}.png")(root)


def ambiguous(root: Path) -> None:
    for folder in ("images", "labels"):
        (root / f"listed/{folder}/y").mkdir()
        mirror(f"listed/{folder}/x/2.png", f"listed/{folder}/y/2.png")(root)


def copy_pair(root: Path) -> None:
    copy(photo(32), photo(34))(root)
    copy(mask(32), mask(34))(root)


def rename_pair(index: int, new: bytes) -> Damage:
    def damage(root: Path) -> None:
        rename(new + b"_photo.png")(root / photo(index))
        rename(new + b"_mask.png")(root / mask(index))

    return damage


def at(place: str, damage: Damage) -> Damage:
    return lambda root: damage(root / place)


def copy(source: str, target: str) -> Damage:
    return lambda root: (shutil.copy(root / source, root / target), None)[1]


def leak(root: Path) -> None:
    Image.open(root / "far/images/0.jpg").save(root / photo(35))


def one_pixel(root: Path) -> None:
    Image.new("RGB", (1, 1)).save(root / photo(23))
    Image.new("L", (1, 1), 1).save(root / mask(23))


def two_classes_only(root: Path) -> None:
    for path in (root / "far/labels").iterdir():
        Image.fromarray(IDS % 2 + 1).save(path)


def empty(root: Path) -> None:
    for path in (root / "photos").iterdir():
        path.unlink()


IDS = np.random.default_rng(9).integers(0, 4, (12, 18), dtype=np.uint8)
GREY = np.full((12, 18), 9, dtype=np.uint8)
UNKNOWN = np.where(np.arange(18) < 2, 77, IDS).astype(np.uint8)  # 24 pixels
NANS = np.full((12, 18), np.nan, dtype=np.float32)
TRAIN, VAL = "depot/train", "depot/val"

# What is done, and what must be found for it: domain, kind and path of each fault.
DAMAGES: list[tuple[Damage, list[tuple[str, Kind, str]]]] = [
    (at(mask(0), remove), [(TRAIN, Kind.MISSING_LABEL, mask(0))]),
    (at(mask(1), rename("01_mask.PNG")), [(TRAIN, Kind.MISNAMED_LABEL, "depot/masks/north/b/01_mask.PNG")]),
    (at(mask(2), rename("02.png")), [(TRAIN, Kind.MISNAMED_LABEL, "depot/masks/north/a/02.png")]),
    (
        at(photo(3), rename("03_photo.PNG")),
        [(TRAIN, Kind.LEFT_OUT, "depot/photos/north/b/03_photo.PNG"), (TRAIN, Kind.STRAY_LABEL, mask(3))],
    ),
    (
        at(photo(4), rename("04_photo.jpeg")),
        [(TRAIN, Kind.LEFT_OUT, "depot/photos/north/a/04_photo.jpeg"), (TRAIN, Kind.STRAY_LABEL, mask(4))],
    ),
    (at(photo(5), remove), [(TRAIN, Kind.STRAY_LABEL, mask(5))]),
    (at(photo(6), truncate), [(TRAIN, Kind.DAMAGED, photo(6))]),
    (at(mask(7), truncate), [(TRAIN, Kind.DAMAGED, mask(7))]),
    (at(photo(8), write(b"<html>404 Not Found</html>")), [(TRAIN, Kind.NOT_AN_IMAGE, photo(8))]),
    (at(mask(9), write(b"")), [(TRAIN, Kind.EMPTY_FILE, mask(9))]),
    (at(photo(10), flip_a_checksum), [(TRAIN, Kind.DAMAGED, photo(10))]),
    (at(mask(11), replace_by(IDS[:11])), [(TRAIN, Kind.SIZE, mask(11))]),
    (at(mask(12), replace_by(UNKNOWN)), [(TRAIN, Kind.UNKNOWN_IDS, mask(12))]),
    (at(mask(13), replace_by(np.stack([IDS] * 3, axis=2))), [(TRAIN, Kind.LABEL_MODE, mask(13))]),
    (at(mask(14), replace_by(NANS, format="TIFF")), [(TRAIN, Kind.LABEL_MODE, mask(14))]),
    (at(mask(15), replace_by(np.stack([IDS] * 4, axis=2))), [(TRAIN, Kind.LABEL_MODE, mask(15))]),
    (at(mask(16), replace_by(np.ones_like(IDS), format="JPEG")), [(TRAIN, Kind.LOSSY_LABEL, mask(16))]),
    (
        at(mask(17), raw_png(12, 18, 4, 0, (b"\x00" + b"\x11" * 9) * 12)),
        [(TRAIN, Kind.LABEL_MODE, mask(17)), (TRAIN, Kind.UNKNOWN_IDS, mask(17))],
    ),
    (at(photo(18), replace_by(GREY.astype(np.uint16))), [(TRAIN, Kind.IMAGE_MODE, photo(18))]),
    (at(photo(19), replace_by(NANS, format="TIFF")), [(TRAIN, Kind.IMAGE_MODE, photo(19))]),
    (at(photo(20), raw_png(12, 18, 16, 2, (b"\x00" + b"\x0f\xff" * 54) * 12)), [(TRAIN, Kind.IMAGE_MODE, photo(20))]),
    (at(photo(21), turn_by_exif), [(TRAIN, Kind.EXIF_ROTATION, photo(21))]),
    (at(photo(22), raw_png(60_000, 60_000, 8, 2, b"")), [(TRAIN, Kind.TOO_LARGE, photo(22))]),
    (one_pixel, [(TRAIN, Kind.TINY, photo(23))]),
    (at(photo(24), link_to("nowhere.png")), [(TRAIN, Kind.DANGLING_LINK, photo(24))]),
    (at(photo(25), link_to("25_photo.png")), [(TRAIN, Kind.LINK_LOOP, photo(25))]),
    (at(photo(26), become_folder), [(TRAIN, Kind.NOT_A_FILE, photo(26))]),
    (at(photo(27), become_pipe), [(TRAIN, Kind.NOT_A_FILE, photo(27))]),
    (at(mask(28), deny), [(TRAIN, Kind.NO_PERMISSION, mask(28))]),
    (at(mask(29), replace_by(np.zeros_like(IDS))), [(TRAIN, Kind.EMPTY_LABEL, mask(29))]),
    (copy(photo(30), photo(31)), [(TRAIN, Kind.DUPLICATE, photo(31)), (TRAIN, Kind.CONFLICTING_LABELS, mask(31))]),
    (copy_pair, [(TRAIN, Kind.DUPLICATE, photo(34))]),
    (
        copy(photo(33), "depot/photos/east/a/9_photo.png"),
        [(TRAIN, Kind.SHARED, photo(33)), (VAL, Kind.COUNT, "depot")],
    ),
    (leak, [(TRAIN, Kind.LEAK, photo(35))]),
    (rename_pair(36, b"36\n"), [(TRAIN, Kind.ODD_NAME, "depot/photos/north/a/36\\n_photo.png")]),
    (rename_pair(37, b"37\xff"), [(TRAIN, Kind.ODD_NAME, "depot/photos/north/b/37\\xff_photo.png")]),
    (
        differ_by_case,
        [(TRAIN, Kind.SAME_BUT_CASE, "depot/photos/north/a/X_photo.png"), (TRAIN, Kind.COUNT, "depot")],
    ),
    (
        at("depot/photos/north/a/._38_photo.png", write(b"\x00\x05\x16\x07")),
        [
            (TRAIN, Kind.NOT_AN_IMAGE, "depot/photos/north/a/._38_photo.png"),
            (TRAIN, Kind.MISSING_LABEL, "depot/masks/north/a/._38_mask.png"),
        ],
    ),
    (at("depot/photos/south/a", deny), [(TRAIN, Kind.NO_PERMISSION, "depot/photos/south/a")]),
    (at("depot/photos/south/loop", link_to("..")), [(TRAIN, Kind.LINK_LOOP, "depot/photos/south/loop")]),
    (at("depot/photos/south/gone", link_to("/no/such/disk")), [(TRAIN, Kind.DANGLING_LINK, "depot/photos/south/gone")]),
    (copy(photo(39), "depot/photos/south/39_photo.png"), [(TRAIN, Kind.LEFT_OUT, "depot/photos/south/39_photo.png")]),
    (at("depot/masks/east", lambda path: shutil.rmtree(path)), [(VAL, Kind.MISSING_FOLDER, "depot/masks/east")]),
    (two_classes_only, [("far/all", Kind.UNSEEN_CLASS, "far")]),
    (at("listed/some.txt", append("nine\n")), [("listed/some", Kind.LIST_ABSENT, "listed/some.txt")]),
    (at("listed/some.txt", append("x/1\n")), [("listed/some", Kind.LIST_REPEAT, "listed/some.txt")]),
    (
        ambiguous,
        [("listed/some", Kind.LIST_AMBIGUOUS, "listed/some.txt")],
    ),
    (at("listed/rest.txt", write(b"\xff3\n")), [("listed/rest", Kind.LIST_UNREADABLE, "listed/rest.txt")]),
    (at("named/config.json", remove), [("named/all", Kind.LABEL_NAMES, "named/config.json")]),
    (empty, [("proxy-photos/all", Kind.EMPTY_FOLDER, "photos")]),
]


def faults(report: Report) -> list[tuple[str, Kind, str]]:
    return [(fault.domain, fault.kind, printable(report.place(fault.path))) for fault in report.faults]


def test_nothing_is_found_where_all_is_well(check: Check, root: Path) -> None:
    report = check(root)
    assert report.faults == ()
    assert list(report.lines())[-1] == "7 domains, 66 images, 62 labels: no finding"


def test_all_damage_is_found_in_one_run_and_nothing_else(check: Check, root: Path) -> None:
    for damage, _ in DAMAGES:
        damage(root)
    report = check(root)
    expected = [fault for _, found in DAMAGES for fault in found]
    found, wanted = Counter(faults(report)), Counter(expected)
    assert (dict(wanted - found), dict(found - wanted)) == ({}, {}), "missed, and told though nothing was done"
    assert len(DAMAGES) >= 20
    assert {kind for _, kind, _ in expected} == set(Kind) - {Kind.CHECK_FAILED}
