"""Where a segmentor is measured: domains by their names, each with its place in a matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gkd_core.data.catalog.load import Benchmark, Catalog, Domain
from gkd_core.errors import DataError
from gkd_core.records import SegmentorCheckpoint

NO_BENCHMARK = "extra"  # in the place of a benchmark's name, for a domain that is in none of the model's


@dataclass(frozen=True)
class Place:
    """A `dataset/split` to measure on, and what the matrix calls it."""

    benchmark: str
    domain: str
    reference: str
    in_domain: bool


def places(catalog: Catalog, benchmarks: Sequence[str], model: SegmentorCheckpoint, names: Sequence[str]) -> list[Place]:
    """The places that names ask for: benchmarks, or domains as `dataset/split`; without any, the model's own benchmarks.

    A domain is called as one of the model's benchmarks has it, else `extra`.

    Args:
        benchmarks: of the settings; those that have the model's source are its own.

    Raises:
        DataError: a name is unknown, or its classes are not the model's; one line each.
    """
    own = [catalog.benchmark(name) for name in benchmarks if catalog.benchmark(name).source.name == model.source]
    wanted = names or [benchmark.name for benchmark in own]
    if not wanted:
        raise DataError(
            f"the model learnt from '{model.source}', which is the source of none of the settings' benchmarks "
            f"({', '.join(benchmarks)}); name the domains to measure it on"
        )
    found: list[Place] = []
    refused: list[str] = []
    for name in wanted:
        try:
            found += _named(catalog, own, model, name)
        except DataError as error:
            refused.append(str(error))
    if refused:
        raise DataError("\n".join(refused))
    return list(dict.fromkeys(found))


def _named(catalog: Catalog, own: Sequence[Benchmark], model: SegmentorCheckpoint, name: str) -> list[Place]:
    if "/" not in name:
        found = list(_of_benchmark(catalog.benchmark(name), model))
    else:
        dataset = catalog.domain(name).entry.name
        known = [place for benchmark in own for place in _of_benchmark(benchmark, model) if place.reference == name]
        found = known[:1] or [Place(NO_BENCHMARK, name, name, in_domain=dataset == model.source)]
    for place in found:
        check_classes(model, catalog.domain(place.reference))
    return found


def check_classes(model: SegmentorCheckpoint, domain: Domain) -> None:
    """Refuse a domain whose labels are of other classes than the model knows, or number them otherwise.

    Raises:
        DataError: naming the first difference.
    """
    taxonomy = domain.taxonomy
    if taxonomy.name == model.taxonomy and tuple(taxonomy.classes) == model.classes:
        return
    pairs = enumerate(zip(taxonomy.classes, model.classes, strict=False))
    differs = next(
        (f"; class {number} is '{here}' here and '{there}' there" for number, (here, there) in pairs if here != there), ""
    )
    raise DataError(
        f"{domain}: its classes are '{taxonomy.name}' ({len(taxonomy.classes)}), the model's are "
        f"'{model.taxonomy}' ({len(model.classes)}){differs}, so it cannot be scored; choose domains with the model's classes, "
        "or run learn-task again with the catalog's"
    )


def _of_benchmark(benchmark: Benchmark, model: SegmentorCheckpoint) -> Iterator[Place]:
    own = benchmark.source.name == model.source
    yield Place(benchmark.name, "in-domain" if own else "validation", benchmark.validation, in_domain=own)
    for domain, reference in benchmark.targets.items():
        yield Place(benchmark.name, domain, reference, in_domain=False)
