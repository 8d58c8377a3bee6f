"""Which datasets a stage reads, and what for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gkd_core.data.catalog import Benchmark, Catalog
from gkd_core.settings import Settings
from gkd_core.stages.recipe import StageRun, benchmarks, data_origin, has_proxy_stage, sources


def domains_read(settings: Settings, catalog: Catalog, run: StageRun) -> dict[str, str]:
    """Every `dataset/split` that a stage reads, with the parts that it plays: proxy, source, validation, target."""
    parts: dict[str, list[str]] = {}

    def note(part: str, references: Iterable[str]) -> None:
        for reference in references:
            parts.setdefault(reference, []).append(part)

    everything = run.stage == "prepare-data"
    if run.stage == "distill-proxy" or (everything and has_proxy_stage(settings)):
        note("proxy", [settings.data.proxy])
    for name, source in sources(settings, catalog).items():
        if everything or (run.stage in ("distill-source", "learn-task") and run.source == name):
            note("source", (reference for reference in source.references if "source" not in parts.get(reference, ())))
    read = [benchmark for benchmark in benchmarks(settings, catalog) if everything or _measures(run, benchmark)]
    note("validation", dict.fromkeys(benchmark.validation for benchmark in read))
    note("target", dict.fromkeys(target for benchmark in read for target in benchmark.targets.values()))
    return {reference: ", ".join(names) for reference, names in parts.items()}


def domain_inputs(settings: Settings, catalog: Catalog, reference: str) -> tuple[Path, ...]:
    """Files and folders that a `dataset/split` consists of, relative to the workspace or absolute."""
    return tuple(data_origin(settings, Path()).inputs(*catalog.domain(reference)))


def _measures(run: StageRun, benchmark: Benchmark) -> bool:
    return run.stage in ("evaluate", "illustrate") and benchmark.source.name == run.source
