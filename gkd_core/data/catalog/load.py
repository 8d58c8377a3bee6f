"""Datasets and benchmarks as data: the YAML files in `catalog/`, read and checked.

A dataset of your own is one more YAML file with a `datasets` entry; no code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from gkd_core.data.catalog.entries import DatasetEntry, Protocol, SplitRule
from gkd_core.data.catalog.errors import describe
from gkd_core.data.catalog.sources import Source
from gkd_core.data.catalog.taxonomy import IGNORE, ColorEncoding, Declaration, Encoding, LabelEncoding, NamedEncoding, Taxonomy
from gkd_core.documents import DocumentError, read_yaml
from gkd_core.errors import DataError
from gkd_core.messages import given_value, one_line, shown
from gkd_core.untrusted import Label, PlainName, objection_to

__all__ = ["Benchmark", "Catalog", "DatasetEntry", "Domain", "Protocol", "load_catalog"]

SHIPPED = resources.files("gkd_core.data") / "catalog"
ALWAYS_LOADED = ("street", "street-forms", "synthetic", "mapillary-v2", "aerial", "aerial-raw", "rescuenet", "proxy")

Entry = TypeVar("Entry")


class Benchmark(Declaration):
    """A source and its target domains, each written `dataset/split`; a source may be several, mixed.

    `validation` is held back from the source domain: checkpoints may be chosen on it, never on a target.
    """

    name: PlainName
    title: Label
    source: Source
    validation: str
    targets: dict[Label, str] = Field(min_length=1)


class Catalog(Declaration):
    """All that the loaded catalog files declare, by name."""

    taxonomies: dict[str, Taxonomy]
    encodings: dict[PlainName, Encoding]
    datasets: dict[str, DatasetEntry]
    benchmarks: dict[str, Benchmark]

    def dataset(self, name: str) -> DatasetEntry:
        """A dataset by name; `DataError` lists the known ones."""
        return _find(self.datasets, name, "dataset")

    def benchmark(self, name: str) -> Benchmark:
        """A benchmark by name; `DataError` lists the known ones."""
        return _find(self.benchmarks, name, "benchmark")

    def domain(self, reference: str) -> Domain:
        """The domain of a reference such as `gta5/train`; `DataError` where its dataset or split is unknown."""
        name, slash, split = reference.partition("/")
        if not slash:
            raise DataError(f"'{shown(reference)}': expected dataset/split, such as gta5/train")
        entry = self.dataset(name)
        entry.split(split)
        return Domain(self, entry, split)

    @property
    def domains(self) -> list[Domain]:
        """Every split of every dataset."""
        return [Domain(self, entry, split) for entry in self.datasets.values() for split in entry.splits]

    def source_taxonomy(self, benchmark: Benchmark) -> Taxonomy:
        """The classes that a benchmark's source teaches."""
        return self.domain(benchmark.source.references[0]).taxonomy

    def taxonomy_of(self, entry: DatasetEntry) -> Taxonomy:
        """The classes of a labelled dataset; `DataError` where it is unlabelled or its encoding is unknown."""
        if entry.encoding is None:
            raise DataError(f"dataset '{entry.name}' is unlabelled: its catalog entry has no labels and no encoding")
        encoding = _find(self.encodings, entry.encoding, "encoding")
        return _find(self.taxonomies, encoding.taxonomy, "taxonomy")


@dataclass(frozen=True, eq=False)
class Domain:
    """One split of one dataset, in the catalog that declares it: what images and labels are asked of (`Origin`)."""

    catalog: Catalog
    entry: DatasetEntry
    split: str

    @property
    def reference(self) -> str:
        """Its name in settings, reports and records: `dataset/split`."""
        return f"{self.entry.name}/{self.split}"

    def __str__(self) -> str:
        return self.reference

    @property
    def rule(self) -> SplitRule:
        """What the catalog says of the split."""
        return self.entry.split(self.split)

    @property
    def is_labelled(self) -> bool:
        """Whether its images have labels."""
        return self.entry.labels is not None

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes of its labels; `DataError` where it is unlabelled."""
        return self.catalog.taxonomy_of(self.entry)

    @property
    def encoding(self) -> Encoding:
        """What the catalog says of the ids, colours or names in its label files; `DataError` where it is unlabelled."""
        self.catalog.taxonomy_of(self.entry)
        return self.catalog.encodings[str(self.entry.encoding)]


def is_shipped(path: Path) -> bool:
    """Whether a file lies among the catalogs that come with the package."""
    return path.is_relative_to(str(SHIPPED))


def load_catalog(extra: Sequence[str | Path] = ()) -> Catalog:
    """Read the shipped catalog and, on top, the files of `extra`: a bare name such as `camvid` means one
    shipped with the package, anything else is a path.

    Raises:
        DataError: a file is missing or malformed, a name is declared twice, or a reference leads nowhere.
    """
    sections: dict[str, dict[str, Any]] = {section: {} for section in Catalog.model_fields}
    files: dict[tuple[str, str], Path] = {}
    for source in (*ALWAYS_LOADED, *extra):
        path = _catalog_file(source)
        for section, items in _read_sections(path).items():
            for name, item in items.items():
                if name in sections[section]:
                    raise DataError(f"{path}: {section} '{name}' is declared already; choose another name")
                sections[section][name], files[section, name] = item, path
    try:
        catalog = Catalog.model_validate(sections)
    except ValidationError as error:
        raise DataError(describe(error, files, Benchmark)) from None
    _check_encodings(catalog)
    _check_benchmarks(catalog)
    return catalog


def _catalog_file(source: str | Path) -> Path:
    if isinstance(source, str) and "/" not in source and not source.endswith((".yaml", ".yml")):
        path = Path(str(SHIPPED)) / f"{source}.yaml"
        if not path.is_file():
            shipped = ", ".join(sorted(entry.stem for entry in Path(str(SHIPPED)).glob("*.yaml")))
            raise DataError(
                f"catalog '{shown(source)}': none of that name is shipped; give one of {shipped}, or a path ending in .yaml"
            )
        return path
    return Path(source)


def _read_sections(path: Path) -> dict[str, dict[str, Any]]:
    """The sections of one file, with names put in and `list_in_catalog` made a path beside the file."""
    try:
        tree = read_yaml(path) or {}
    except FileNotFoundError:
        raise DataError(f"{path}: no such catalog file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None
    except DocumentError as error:
        raise DataError(f"{path}: cannot be read as YAML: {error}") from None
    known = tuple(Catalog.model_fields)
    if not isinstance(tree, dict) or not set(tree) <= set(known):
        raise DataError(f"{path}: expected the sections {', '.join(known)} at the top level")
    if not all(isinstance(items, dict) and all(isinstance(item, dict) for item in items.values()) for items in tree.values()):
        raise DataError(f"{path}: expected each section to map names to groups of keys")
    odd = [name for items in tree.values() for name in items if not isinstance(name, str)]
    if odd:
        raise DataError(f"{path}: {given_value(odd[0])}: a name is text; quote it")
    for section in ("taxonomies", "datasets", "benchmarks"):
        for name, item in tree.get(section, {}).items():
            item["name"] = name
    for item in tree.get("datasets", {}).values():
        splits = item.get("splits")
        for rule in splits.values() if isinstance(splits, dict) else ():
            if isinstance(rule, dict) and isinstance(rule.get("list_in_catalog"), str):
                rule["list_in_catalog"] = path.parent / _beside(path, rule["list_in_catalog"])
    return tree


def _beside(path: Path, list_file: str) -> str:
    reason = objection_to(list_file)
    if reason:
        raise DataError(f"{path}: list_in_catalog '{shown(list_file)}': {reason}; expected a path below the catalog's folder")
    return list_file


def _check_encodings(catalog: Catalog) -> None:
    for name, encoding in catalog.encodings.items():
        classes = _find(catalog.taxonomies, encoding.taxonomy, f"encoding '{name}': taxonomy").classes
        if isinstance(encoding, LabelEncoding):
            wrong: list[Any] = [value for value in encoding.ids.values() if value != IGNORE and value >= len(classes)]
        else:
            named = encoding.colors if isinstance(encoding, ColorEncoding) else encoding.classes
            wrong = [value for value in named.values() if value is not None and value not in classes]
        if wrong:
            raise DataError(
                f"encoding '{name}': {wrong[0]!r} is no class of taxonomy '{encoding.taxonomy}' ({len(classes)} classes)"
            )
    for entry in catalog.datasets.values():
        if entry.encoding is not None:
            catalog.taxonomy_of(entry)
            if isinstance(catalog.encodings[entry.encoding], NamedEncoding) != (entry.label_names is not None):
                raise DataError(f"dataset '{entry.name}': label_names needs an encoding by names, and is for no other")


def _check_benchmarks(catalog: Catalog) -> None:
    for benchmark in catalog.benchmarks.values():
        references = (*benchmark.source.references, benchmark.validation, *benchmark.targets.values())
        taxonomies = {catalog.domain(reference).taxonomy.name for reference in references}
        if len(taxonomies) > 1:
            raise DataError(f"benchmark '{benchmark.name}': its domains have different classes ({', '.join(sorted(taxonomies))})")


def _find(table: Mapping[str, Entry], name: str, kind: str) -> Entry:
    if name not in table:
        raise DataError(f"{kind} '{shown(name)}' is unknown; there is: {', '.join(sorted(table)) or 'none'}")
    return table[name]
