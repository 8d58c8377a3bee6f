"""What a matrix shows, in sentences computed from its numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from gkd_core.methods import METHODS, describe
from gkd_core.reports.rows import Row, spread

ONE_SEED = 1


def description(row: Row) -> str | None:
    """What the row's method does, as it was run; None where the method is not one of ours."""
    method = METHODS.get(row.method)  # type: ignore[call-overload]  # tables may come from elsewhere
    return None if method is None else describe(method, encoder_frozen=not row.key.trained_encoder)


def headline(rows: Sequence[Row]) -> list[str]:
    """Which student generalises best away from home, where it is weakest, and what it loses; the teacher is no student."""
    students = [row for row in rows if row.method != "teacher" and row.targets]
    if not students:
        return []
    best, *others = sorted(students, key=lambda row: -statistics.fmean(row.targets))
    first = "Generalises best" if others else "Generalises"
    lines = [f"{first}: {best.label}, {spread(best.targets)} on the mean over targets{_home(best)}."]
    if best.worst is not None:
        benchmark, domain = best.worst
        lines.append(f"Its worst domain is {domain} ({benchmark}), {spread(best.cells[best.worst])}.")
    firmest = max(students, key=_worst_value)
    if firmest is not best and firmest.worst is not None:
        benchmark, domain = firmest.worst
        lines.append(
            f"{firmest.label} has the better worst domain: {spread(firmest.cells[firmest.worst])} on {domain} ({benchmark})."
        )
    if others:
        lines += _lead(best, others[0])
    return lines


def findings(rows: Sequence[Row]) -> list[str]:
    """GKD against its rivals, wherever they share student and labels."""
    lines = []
    students = [row for row in rows if row.method != "teacher" and not row.key.trained_encoder and row.targets]
    settings = list(dict.fromkeys((row.key.student, row.key.label_fraction) for row in students))
    for student, fraction in settings:
        group = {row.method: row for row in students if row.key[1:3] == (student, fraction)}
        several_students, several_fractions = (len({pair[place] for pair in settings}) > 1 for place in (0, 1))
        notes = [student] * several_students + [f"{100 * fraction:g} % of labels"] * several_fractions
        lines += [f"{', '.join(notes)}: {line}" if notes else line for line in _against_rivals(group)]
    return lines


def _against_rivals(rows: dict[str, Row]) -> list[str]:
    means = {method: statistics.fmean(row.targets) for method, row in rows.items()}
    lines = []
    if "gkd" in means and "two-stage-mse" in means:
        gap = means["gkd"] - means["two-stage-mse"]
        noise = max(_deviation(rows["gkd"]), _deviation(rows["two-stage-mse"]))
        verdict = "beats" if gap > noise else "does not beat"
        lines.append(
            f"GKD {verdict} two-stage MSE here: {gap:+.1f} points on the mean over targets "
            f"(the larger standard deviation over seeds of the two is {noise:.1f})."
        )
    for method in ("gkd", "two-stage-mse"):
        for rival in ("no-kd", "single-stage-mse"):
            if method in means and rival in means:
                lines.append(f"{method} against {rival}: {means[method] - means[rival]:+.1f} points on the mean over targets.")
    return lines


def _lead(best: Row, second: Row) -> list[str]:
    lead = statistics.fmean(best.targets) - statistics.fmean(second.targets)
    told = f"{best.label} leads {second.label} by {lead:.1f} points"
    if min(len(best.targets), len(second.targets)) <= ONE_SEED:
        return [f"{told}; with one seed of either, nobody knows how much of that is chance."]
    noise = max(_deviation(best), _deviation(second))
    if lead > noise:
        return [f"{told}, more than either varies over seeds ({noise:.1f})."]
    return [f"{told}, no more than they vary over seeds ({noise:.1f}): they are level."]


def _home(row: Row) -> str:
    if not row.gaps:
        return ""
    home = statistics.fmean(row.in_domain)
    return f", against {home:.1f} at home (a gap of {spread(row.gaps)})"


def _worst_value(row: Row) -> float:
    return float("-inf") if row.worst is None else statistics.fmean(row.cells[row.worst])


def _deviation(row: Row) -> float:
    return statistics.stdev(row.targets) if len(row.targets) > 1 else 0.0
