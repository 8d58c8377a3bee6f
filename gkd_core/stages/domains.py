"""Which datasets a run and its stages read, and what for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gkd_core.data.catalog.load import Benchmark, Catalog
from gkd_core.data.catalog.sources import Source
from gkd_core.errors import DataError
from gkd_core.settings import Settings
from gkd_core.stages.facts import STAGES
from gkd_core.stages.origin import data_origin
from gkd_core.stages.run import StageRun


def benchmarks(settings: Settings, catalog: Catalog) -> list[Benchmark]:
    """The benchmarks that the settings name, in their order."""
    return [catalog.benchmark(name) for name in settings.data.benchmarks]


def sources(settings: Settings, catalog: Catalog) -> dict[str, Source]:
    """What students learn from, by name, in the order of the benchmarks.

    Raises:
        DataError: two benchmarks have sources of one name that are not the same.
    """
    found: dict[str, Source] = {}
    for benchmark in benchmarks(settings, catalog):
        source = found.setdefault(benchmark.source.name, benchmark.source)
        if source != benchmark.source:
            raise DataError(
                f"benchmark '{benchmark.name}': learns from {benchmark.source}, another benchmark of the run from {source}; "
                f"stages would call both '{source.name}': run them apart (data.benchmarks)"
            )
    return found


def domains_of(settings: Settings, catalog: Catalog, source: str) -> list[str]:
    """Every `dataset/split` that a source's student is measured on, its own validation split first."""
    own = [benchmark for benchmark in benchmarks(settings, catalog) if benchmark.source.name == source]
    references = [benchmark.validation for benchmark in own] + [
        target for benchmark in own for target in benchmark.targets.values()
    ]
    return list(dict.fromkeys(references))


def all_domains(settings: Settings, catalog: Catalog) -> list[str]:
    """Every `dataset/split` that a run reads: proxy (where there is a stage 1a), sources, validation and targets."""
    learnt = sources(settings, catalog)
    measured = [reference for source in learnt for reference in domains_of(settings, catalog, source)]
    parts = [reference for source in learnt.values() for reference in source.references]
    # Whatever the method, so that methods under comparison share one prepared data.
    proxy = [settings.data.proxy] if has_proxy_stage(settings) else []
    return list(dict.fromkeys([*proxy, *parts, *measured]))


def trained_domains(settings: Settings, catalog: Catalog) -> list[str]:
    """Every `dataset/split` that a run learns from: proxy and sources."""
    parts = [reference for source in sources(settings, catalog).values() for reference in source.references]
    return [settings.data.proxy, *parts]


def has_proxy_stage(settings: Settings) -> bool:
    """Whether a distilled student goes through stage 1a: `distill_proxy.updates: 0` leaves it out (the paper's F2F)."""
    return settings.distill_proxy.updates != 0


def domains_read(settings: Settings, catalog: Catalog, run: StageRun) -> dict[str, str]:
    """Every `dataset/split` that a stage reads, with the parts that it plays: proxy, source, validation, target."""
    parts: dict[str, list[str]] = {}

    def note(part: str, references: Iterable[str]) -> None:
        for reference in references:
            parts.setdefault(reference, []).append(part)

    reads = STAGES[run.stage].reads
    if "proxy" in reads and has_proxy_stage(settings):
        note("proxy", [settings.data.proxy])
    for name, source in sources(settings, catalog).items():
        if "source" in reads and run.source in (None, name):
            note("source", (reference for reference in source.references if "source" not in parts.get(reference, ())))
    own = [benchmark for benchmark in benchmarks(settings, catalog) if run.source in (None, benchmark.source.name)]
    if "validation" in reads:
        note("validation", dict.fromkeys(benchmark.validation for benchmark in own))
    if "target" in reads:
        note("target", dict.fromkeys(target for benchmark in own for target in benchmark.targets.values()))
    return {reference: ", ".join(names) for reference, names in parts.items()}


def domain_inputs(settings: Settings, catalog: Catalog, reference: str) -> tuple[Path, ...]:
    """Files and folders that a `dataset/split` consists of, relative to the workspace or absolute."""
    return tuple(data_origin(settings, Path()).inputs(*catalog.domain(reference)))
