"""The embedded world on disk: every dataset of the shipped benchmarks, small, in its real layout with its real label ids."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from gkd_core.data.catalog.entries import DatasetEntry, path_of
from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding, NamedEncoding, Taxonomy
from gkd_core.data.files.reading import resolve_encoding
from gkd_core.data.world.layouts import LAYOUTS, MAPILLARY_NAMES, Layout
from gkd_core.data.world.render import render, render_labelled
from gkd_core.data.world.sensors import AERIAL_STYLES
from gkd_core.errors import DataError
from gkd_core.files import atomic_folder
from gkd_core.settings import WorldSettings

Progress = Callable[[int, int], None]
MARKER = "world.json"


def write_world(settings: WorldSettings, root: Path, progress: Progress | None = None) -> None:
    """Render all datasets of the embedded world into `root`: a pure function of `settings`, byte for byte
    (for one build of numpy and Pillow).

    A world that is there already is replaced, whole. `progress` is called with images done and images in all.

    Raises:
        DataError: `root` holds something that is not a world.
    """
    if root.exists() and not (root / MARKER).is_file() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: holds files that are not a rendered world; give an empty folder, or remove it yourself")
    catalog = load_catalog()
    total = settings.proxy_images + sum(getattr(settings, layout.count) for layout in LAYOUTS)
    with atomic_folder(root) as folder:
        for done, _ in enumerate(_write_all(catalog, settings, folder), start=1):
            if progress is not None:
                progress(done, total)
        (folder / MARKER).write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _write_all(catalog: Catalog, settings: WorldSettings, root: Path) -> Iterator[None]:
    """Write image after image; yields after each."""
    yield from _write_proxy(catalog.dataset("proxy"), settings, root)
    written = dict.fromkeys(layout.domain.partition("/")[0] for layout in LAYOUTS)
    for entry in map(catalog.dataset, written):
        encoding = catalog.encodings.get(entry.encoding or "")
        if isinstance(encoding, NamedEncoding):
            _write_names(encoding, entry.dataset_folder(root) / str(entry.label_names))
    for layout in LAYOUTS:
        yield from _write_domain(catalog, layout, settings, root)


def _write_proxy(entry: DatasetEntry, settings: WorldSettings, root: Path) -> Iterator[None]:
    """Two street images, then one aerial image, over and over; no labels."""
    for index in range(settings.proxy_images):
        aerial = index % 3 == 2
        size = settings.aerial_size if aerial else settings.street_size
        image, _ = render_labelled("aerial" if aerial else "street", _seed(settings, "proxy", index), size)
        _save(Image.fromarray(image), entry.dataset_folder(root) / path_of(entry.image_patterns("all")[0], f"{index:06d}"))
        yield


def _write_domain(catalog: Catalog, layout: Layout, settings: WorldSettings, root: Path) -> Iterator[None]:
    domain = catalog.domain(layout.domain)
    entry, split = domain.entry, domain.split
    base = entry.dataset_folder(root)
    image_pattern, label_pattern = entry.image_patterns(split)[0], entry.label_patterns(split)[0]
    height, width = settings.aerial_size if layout.style in AERIAL_STYLES else settings.street_size
    file_ids = _file_ids(catalog, entry, root)
    palette = _palette(domain.taxonomy, file_ids) if entry.name == "gta5" else None
    count = getattr(settings, layout.count)
    for index in range(count):
        image, label = render(layout.style, _seed(settings, layout.scenes, index), (height * layout.zoom, width * layout.zoom))
        _save(Image.fromarray(image), base / path_of(image_pattern, layout.name(index)))
        stored = Image.fromarray(file_ids[label])
        if palette is not None:
            stored.putpalette(palette)
        _save(stored, base / path_of(label_pattern, layout.name(index)))
        yield
    list_file = domain.rule.list_file(base)
    if list_file is not None:
        list_file.write_text("".join(f"{layout.name(index)}\n" for index in range(count)), encoding="utf-8")


def _write_names(encoding: NamedEncoding, path: Path) -> None:
    """Mapillary's config.json: the label names in the order of their ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = [{"name": name, "readable": name.rpartition("--")[2].replace("-", " ").title()} for name in encoding.classes]
    path.write_text(json.dumps({"version": "1.1", "labels": labels}, indent=1) + "\n", encoding="utf-8")


def _file_ids(catalog: Catalog, entry: DatasetEntry, root: Path) -> np.ndarray:
    """The id that a label file has for each train id, uint8 (256,): the lowest where several mean one class."""
    encoding: LabelEncoding = resolve_encoding(catalog, entry, root)
    table = np.zeros(256, dtype=np.uint8)
    for file_id in sorted((file_id for file_id in encoding.ids if file_id >= 0), reverse=True):
        table[encoding.ids[file_id]] = file_id
    declared = catalog.encodings[str(entry.encoding)]
    if isinstance(declared, NamedEncoding):
        names, classes = list(declared.classes), catalog.taxonomy_of(entry).classes
        for kind, name in MAPILLARY_NAMES.items():
            table[IGNORE if kind == "void" else classes.index(kind)] = names.index(name)
    return table


def _palette(taxonomy: Taxonomy, file_ids: np.ndarray) -> list[int]:
    """768 numbers: the colour of each file id, black where it has no class."""
    palette = np.zeros((256, 3), dtype=int)
    palette[file_ids[: len(taxonomy.classes)]] = taxonomy.colors
    return [int(value) for value in palette.ravel()]


def _seed(settings: WorldSettings, scenes: str, index: int) -> np.random.SeedSequence:
    """A scene's own seed, so that no image depends on how many there are or in which order they are drawn."""
    return np.random.SeedSequence([settings.seed, zlib.crc32(scenes.encode()), index])


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        picture.save(path, quality=95, subsampling=0)
    else:
        picture.save(path, compress_level=1)
