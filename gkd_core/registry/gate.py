"""The gate: whether a challenger takes the champion's place.

Each side is one student's recipe, measured with one or more seeds. Means over seeds are compared:

- the mean over targets must be up by at least `margin` points;
- no target domain may be down by more than `max_drop` points;
- where both sides have two seeds or more, the gain must also exceed the standard error of the difference (Welch):
  sqrt(var_challenger / n_challenger + var_champion / n_champion), from the sample variances of the per-seed target means.

One standard error, and not two: it is the largest multiple at which a better score of any one seed can never turn a promotion
into a refusal, as gain − k·error grows with each score of the challenger for k ≤ 1 (d gain/d score = 1/n, d error/d score ≤ 1/n).
It is a bar against noise of training, not a significance test: two or three seeds allow none worth its name.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from gkd_core.errors import GkdError
from gkd_core.records import Record, Score, ScoreProtocol
from gkd_core.reports.rows import Cell, target_mean

DIGITS = 9  # scores are compared after rounding here, so that 30.1 − 30.0 is not less than 0.1
Decision = Literal["first", "better", "refused", "not comparable"]


class SeedScores(Record):
    """One seed's student on every domain of its source's benchmarks."""

    seed: int
    scores: tuple[Score, ...]

    @property
    def validation(self) -> float:
        """Mean mIoU on the source's own validation split, %: what a seed may be chosen by."""
        return statistics.fmean({score.dataset: score.miou for score in self.scores if score.in_domain}.values())


class Standing(Record):
    """What is known of one side.

    Attributes:
        name: how to call it in a sentence, such as `gkd-student-gta5 version 3`.
        seeds: its scores, one entry a seed.
        data: digest of each `dataset/split` measured on.
    """

    name: str
    seeds: tuple[SeedScores, ...]
    data: dict[str, str]

    def cells(self) -> dict[Cell, float]:
        """mIoU of each cell in %, mean over seeds."""
        found: dict[Cell, list[float]] = {}
        for entry in self.seeds:
            for score in entry.scores:
                found.setdefault((score.benchmark, score.domain), []).append(score.miou)
        return {cell: statistics.fmean(values) for cell, values in found.items()}

    def target_means(self) -> list[float]:
        """Mean mIoU over targets of each seed, %."""
        return [target_mean(entry.scores) for entry in self.seeds]


class DomainChange(Record):
    """One line of the verdict's table: mIoU in %, mean over seeds; the champion's is null where there is none."""

    benchmark: str
    domain: str
    in_domain: bool
    champion: float | None
    challenger: float
    verdict: Literal["new", "holds", "lost"]

    @property
    def change(self) -> float | None:
        return None if self.champion is None else round(self.challenger - self.champion, DIGITS)


class Verdict(Record):
    """What the gate says, and why.

    Attributes:
        gain: points by which the mean over targets is up; null where nothing was compared.
        noise: standard error of that difference, in points; null where a side has one seed.
    """

    kind: Literal["verdict"] = "verdict"
    decision: Decision
    challenger: str
    champion: str | None
    reasons: tuple[str, ...]
    domains: tuple[DomainChange, ...]
    gain: float | None = None
    noise: float | None = None

    @property
    def promote(self) -> bool:
        """Whether the challenger takes the champion's place."""
        return self.decision in ("first", "better")


def decide(challenger: Standing, champion: Standing | None, margin: float, max_drop: float) -> Verdict:
    """Ask whether a challenger takes the champion's place.

    Args:
        margin: points of mIoU by which the mean over targets must be up at least.
        max_drop: points by which a target domain may be down at most.

    Raises:
        GkdError: the seeds of one side were not measured alike.
    """
    if champion is None:
        reason = f"{challenger.name} is promoted: there is no champion yet, so nothing was compared"
        table = _table(challenger, None, max_drop)
        return Verdict(decision="first", challenger=challenger.name, champion=None, reasons=(reason,), domains=table)
    obstacles = _obstacles(challenger, champion)
    if obstacles:
        advice = (
            "measure both on the same data with the same settings, or promote by hand: gkd registry promote NAME VERSION --reason"
        )
        return Verdict(
            decision="not comparable",
            challenger=challenger.name,
            champion=champion.name,
            reasons=(*obstacles, advice),
            domains=_table(challenger, None, max_drop),
        )
    return _compared(challenger, champion, margin, max_drop)


def _compared(challenger: Standing, champion: Standing, margin: float, max_drop: float) -> Verdict:
    ours, theirs = challenger.target_means(), champion.target_means()
    gain = round(statistics.fmean(ours) - statistics.fmean(theirs), DIGITS)
    noise = welch_error(ours, theirs)
    table = _table(challenger, champion, max_drop)
    refusals = [
        f"{change.benchmark} {change.domain} is down by {-(change.change or 0):.2f} points "
        f"({change.champion:.2f} → {change.challenger:.2f}); at most {max_drop:g} is allowed"
        for change in table
        if change.verdict == "lost"
    ]
    if gain < margin or gain <= 0:
        refusals.append(f"the mean over targets changes by {gain:+.2f} points; at least {margin:+g} and more than 0 is asked")
    if noise is not None and gain <= noise:
        refusals.append(f"the gain of {gain:+.2f} points is within the noise of training: standard error {noise:.2f} (Welch)")
    seeds = f"seeds: {len(ours)} against {len(theirs)}"
    if noise is None:
        seeds += "; with a single seed on a side the noise of training is not known, so this verdict does not weigh it"
    word = "refused" if refusals else "better"
    means = f"mean over targets {statistics.fmean(theirs):.2f} → {statistics.fmean(ours):.2f} ({gain:+.2f} points)"
    return Verdict(
        decision=word,
        challenger=challenger.name,
        champion=champion.name,
        reasons=(*refusals, means, seeds) if refusals else (means, f"no target is down by more than {max_drop:g} points", seeds),
        domains=table,
        gain=gain,
        noise=noise,
    )


def welch_error(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Standard error of the difference of two means, variances not assumed equal; None where a side has fewer than two values."""
    if min(len(ours), len(theirs)) < 2:
        return None
    parts = (statistics.variance(values) / len(values) for values in (ours, theirs))
    return round(sum(parts) ** 0.5, DIGITS)


def _table(challenger: Standing, champion: Standing | None, max_drop: float) -> tuple[DomainChange, ...]:
    before = {} if champion is None else champion.cells()
    in_domain = {(score.benchmark, score.domain): score.in_domain for score in challenger.seeds[0].scores}
    lines = []
    for cell, value in challenger.cells().items():
        old = before.get(cell)
        lost = old is not None and not in_domain[cell] and round(old - value, DIGITS) > max_drop
        verdict: Literal["new", "holds", "lost"] = "new" if old is None else "lost" if lost else "holds"
        lines.append(
            DomainChange(
                benchmark=cell[0], domain=cell[1], in_domain=in_domain[cell], champion=old, challenger=value, verdict=verdict
            )
        )
    return tuple(lines)


def _obstacles(challenger: Standing, champion: Standing) -> list[str]:
    """Why the two cannot be compared, a sentence each; empty where they can."""
    ours, theirs = _measured(challenger), _measured(champion)
    if ours.keys() != theirs.keys():
        gone, new = sorted(theirs.keys() - ours.keys()), sorted(ours.keys() - theirs.keys())
        only = [f"only the champion has {_names(gone)}"] * bool(gone) + [f"only the challenger has {_names(new)}"] * bool(new)
        return [f"measured on other domains: {'; '.join(only)}"]
    found = []
    for cell, (dataset, protocol) in ours.items():
        old_dataset, old_protocol = theirs[cell]
        if dataset != old_dataset:
            found.append(f"{_names([cell])} is {dataset} now and was {old_dataset}")
        elif protocol != old_protocol:
            found.append(f"{_names([cell])} was measured by another protocol: {_protocol_difference(old_protocol, protocol)}")
        elif cell in _targets(challenger) and not _same_data(challenger.data, champion.data, dataset):
            digests = f"{champion.data.get(dataset, 'unknown')} → {challenger.data.get(dataset, 'unknown')}"
            found.append(f"the data of the target {dataset} are not the same: {digests}")
    return found


def _same_data(ours: Mapping[str, str], theirs: Mapping[str, str], dataset: str) -> bool:
    return dataset in ours and ours[dataset] == theirs.get(dataset)


def _measured(side: Standing) -> dict[Cell, tuple[str, ScoreProtocol]]:
    """Dataset and protocol of each cell; all seeds of a side must have been measured alike."""
    cells: dict[Cell, tuple[str, ScoreProtocol]] = {}
    for entry in side.seeds:
        for score in entry.scores:
            facts = (score.dataset, score.protocol)
            if cells.setdefault((score.benchmark, score.domain), facts) != facts:
                raise GkdError(
                    f"{side.name}: its seeds were not measured alike on {score.benchmark} {score.domain}; run them again"
                )
    return cells


def _targets(side: Standing) -> set[Cell]:
    return {(score.benchmark, score.domain) for entry in side.seeds for score in entry.scores if not score.in_domain}


def _protocol_difference(old: ScoreProtocol, new: ScoreProtocol) -> str:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    return ", ".join(f"{key} {before[key]} → {after[key]}" for key in after if before[key] != after[key])


def _names(cells: Sequence[Cell]) -> str:
    return ", ".join(" ".join(cell) for cell in cells)
