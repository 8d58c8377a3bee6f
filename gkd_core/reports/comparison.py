"""Students side by side: the scores of several runs joined, with their costs, and warnings about what is not comparable."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Self

from gkd_core.predict.latency import Latency, ModelLatency
from gkd_core.records import Score, ScoreTable
from gkd_core.reports.comparability import cautions
from gkd_core.reports.rows import Row, RowKey, labels_of, pool, row_key

# Settings that no score depends on.
IDLE = ("illustrate.", "registry.", "tracking.", "compute.keep_")
# Settings by which runs may differ and still make one row: the seed, what the row's own key says, and where the work was done.
SAME_ROW = (
    *("seed", "method", "learn_task.label_fraction", "learn_task.freeze_encoder"),
    *("compute.", "evaluate.workers", "evaluate.batch_size", "data.root", "data.shards"),
    *IDLE,
)
# Latencies among the costs, each with the model of a record that it is of.
LATENCIES: Mapping[str, Callable[[Latency], ModelLatency | None]] = {
    "latency_ms": lambda record: record.model,
    "against_latency_ms": lambda record: record.against,
}
NAMED_SETTINGS = 2  # more that differ would not fit in a row's name


@dataclass(frozen=True)
class StoredPicture:
    """A picture of a student, as `pictures.json` describes it; `path` is the file here."""

    title: str
    kind: str
    domain: str
    path: Path


@dataclass(frozen=True)
class RunFacts:
    """One finished run, wherever it is remembered.

    Attributes:
        name: for people; `run_id` and `url` where MLflow has it.
        settings: all settings, flat; empty where there is only a report.
        costs: metrics below `cost/`, by their names without it.
        unknown_costs: stages whose cost nobody knows.
        data: digest of each `dataset/split` that it read.
        weights: SHA-256 of its students' weights; empty where unknown.
        code: git revision, marked where the checkout had changes; empty where unknown.
    """

    name: str
    scores: tuple[Score, ...]
    run_id: str | None = None
    url: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    unknown_costs: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    weights: frozenset[str] = frozenset()
    code: str = ""
    pictures: tuple[StoredPicture, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One row of a comparison, the scores in it, the runs that they come from, and what one of its students takes."""

    row: Row
    scores: tuple[Score, ...]
    runs: tuple[RunFacts, ...] = ()
    latency: Latency | None = None

    def cost(self, name: str) -> float | None:
        """Mean of a cost over the row's runs, None where it is unknown for any; of a latency, the one that was measured."""
        if name in LATENCIES:
            model = None if self.latency is None else LATENCIES[name](self.latency)
            return None if model is None else 1000 * model.median_seconds
        values = [run.costs.get(name) for run in self.runs]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known and len(known) == len(values) else None

    def setting(self, key: str) -> str:
        """Value of a setting in the row's runs; several, where they differ."""
        return " / ".join(dict.fromkeys(run.settings.get(key, "–") for run in self.runs))


@dataclass(frozen=True)
class Comparison:
    """Rows, best first, and what a reader has to know of them."""

    entries: tuple[Entry, ...]
    cautions: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """The rows, best mean over targets first."""
        return [entry.row for entry in self.entries]

    @property
    def runs(self) -> list[RunFacts]:
        """Each run once, in the order of the rows."""
        return list({id(run): run for entry in self.entries for run in entry.runs}.values())

    @property
    def scores(self) -> tuple[Score, ...]:
        """The scores of all rows."""
        return tuple(score for entry in self.entries for score in entry.scores)

    @classmethod
    def of_table(cls, table: ScoreTable) -> Self:
        """The comparison that a table of scores holds by itself."""
        entries = [Entry(row, tuple(score for score in table.scores if row_key(score) == row.key)) for row in pool(table)]
        return cls(_ranked(entries), tuple(cautions([(entry.row.label, entry.scores, ()) for entry in entries])))

    @classmethod
    def of_runs(cls, runs: Sequence[RunFacts]) -> Self:
        """Runs joined into rows: those that differ in the seed alone are pooled, all others stand apart.

        Args:
            runs: the newest first; where two have the same seed in one row, the first counts.
        """
        members: dict[RowKey, list[RunFacts]] = {}
        for run in runs:
            for key in dict.fromkeys(map(row_key, run.scores)):
                members.setdefault(key, []).append(run)
        labels = labels_of(list(members))
        entries: list[Entry] = []
        repeated: list[str] = []
        for key, those in members.items():
            for variant, group in _variants(those).items():
                label = f"{labels[key]}{variant}"
                scores, again = _distinct(key, group)
                repeated += [f"{run.name} repeats a seed of {label}: the newer run counts." for run in again]
                row = pool(ScoreTable(scores=tuple(scores)))[0]
                counted = tuple(run for run in group if run not in again)
                entries.append(Entry(replace(row, label=label), tuple(scores), counted))
        facts = [(entry.row.label, entry.scores, [run.data for run in entry.runs]) for entry in entries]
        guessed = [
            f"The settings of {entry.row.label} are not known: its reports were pooled by method, student and labels alone."
            for entry in entries
            if len(entry.runs) > 1 and not any(run.settings for run in entry.runs)
        ]
        return cls(_ranked(entries), (*cautions(facts), *repeated, *guessed))

    def differing_settings(self) -> list[str]:
        """Keys of the settings that are not the same in all rows, the seed apart and those that no score depends on."""
        keys = dict.fromkeys(key for run in self.runs for key in run.settings if not key.startswith(("seed", *IDLE)))
        return [key for key in keys if len({entry.setting(key) for entry in self.entries if entry.runs}) > 1]


def _ranked(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    def rank(entry: Entry) -> float:
        return -statistics.fmean(entry.row.targets) if entry.row.targets else float("inf")

    return tuple(sorted(entries, key=rank))


def _variants(runs: Sequence[RunFacts]) -> dict[str, list[RunFacts]]:
    """Runs of one key by what else tells them apart, as words to put behind the row's name."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if not key.startswith(SAME_ROW))
    telling = [key for key in keys if len({run.settings.get(key) for run in runs}) > 1]
    groups: dict[tuple[str | None, ...], list[RunFacts]] = {}
    for run in runs:
        # A report without settings cannot be said to be like a run that has some.
        facts = tuple(run.settings.get(key) for key in telling) if run.settings else ("no settings",)
        groups.setdefault(facts, []).append(run)
    if len(groups) == 1:
        return {"": list(runs)}
    named = len(telling) <= NAMED_SETTINGS
    words = {}
    for facts, group in groups.items():
        by_settings = named and group[0].settings
        note = ", ".join(f"{key}={value}" for key, value in zip(telling, facts, strict=True)) if by_settings else group[0].name
        words[f" [{note}]"] = group
    return words


def _distinct(key: RowKey, runs: Sequence[RunFacts]) -> tuple[list[Score], list[RunFacts]]:
    """The scores of one row, each seed from the first run that has it; and the runs left out for that."""
    scores: list[Score] = []
    seen: set[int] = set()
    again = []
    for run in runs:
        own = [score for score in run.scores if row_key(score) == key]
        fresh = [score for score in own if score.seed not in seen]
        if len(fresh) < len(own):
            again.append(run)
        scores += fresh
        seen |= {score.seed for score in fresh}
    return scores, again


class CostColumn(NamedTuple):
    """A cost: its metric below `cost/`, its column's head, its unit, and what it says."""

    metric: str
    head: str
    unit: str
    meaning: str


COST_COLUMNS = (
    CostColumn("seconds", "time", "s", "wall-clock time of all stages together, whoever ran them"),
    CostColumn("gpu_hours", "GPU-hours", "h", "GPUs times the hours that processes worked on them"),
    CostColumn("cpu_core_hours", "core-hours", "h", "processor time of all processes"),
    CostColumn("images_per_second", "training", "images/s", "mean speed of the training stages"),
    CostColumn("peak_host_gb", "memory", "GB", "largest memory of a stage's processes together"),
    CostColumn("peak_gpu_gb", "GPU memory", "GB", "largest allocation on one GPU"),
    CostColumn("parameters_millions", "parameters", "M", "parameters of student and decoder"),
    CostColumn("gflops", "GFLOPs", "", "floating-point operations of one evaluation window"),
    CostColumn("weights_mb", "weights", "MB", "size of the student's safetensors"),
    CostColumn("teacher_parameters_millions", "teacher's parameters", "M", "parameters of its teacher, with the same decoder"),
    CostColumn("teacher_gflops", "teacher's GFLOPs", "", "GFLOPs of its teacher, with the same decoder"),
    CostColumn("latency_ms", "latency", "ms", "median of a pass of one student of the row, by gkd latency"),
    CostColumn("against_latency_ms", "against", "ms", "the same of what it was measured in turn with, such as its teacher"),
)


def figure(value: float | None) -> str:
    """Three digits that count, thousands apart; a dash where the value is unknown."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
