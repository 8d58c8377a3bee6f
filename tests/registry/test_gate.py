"""The gate: golden cases, and the properties that make it a gate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkd_core.errors import GkdError
from gkd_core.records import Score, ScoreProtocol
from gkd_core.registry.gate import SeedScores, Standing, Verdict, decide, welch_error

PROTOCOL = ScoreProtocol(
    scale=1.0, max_size=None, labels_resized=False, window=(32, 32), stride=(32, 32), classes=2, selection="last checkpoint"
)
TARGETS = ("rain", "fog", "night")


def score(domain: str, miou: float, seed: int = 0, protocol: ScoreProtocol = PROTOCOL) -> Score:
    return Score(
        method="gkd", teacher="t", student="s", seed=seed, benchmark="B", source="src", domain=domain, dataset=f"{domain}/val",
        in_domain=domain == "in-domain", miou=miou, class_iou={}, images=2, protocol=protocol,
    )  # fmt: skip


def standing(name: str, *seeds: Sequence[float], protocol: ScoreProtocol = PROTOCOL, digest: str = "d") -> Standing:
    """One entry a seed: mIoU of each target."""
    entries = tuple(
        SeedScores(
            seed=number,
            scores=(
                score("in-domain", 80.0, number, protocol),
                *(score(domain, value, number, protocol) for domain, value in zip(TARGETS, values, strict=False)),
            ),
        )
        for number, values in enumerate(seeds)
    )
    data = {f"{domain}/val": digest for domain in ("in-domain", *TARGETS)}
    return Standing(name=name, seeds=entries, data=data)


def ask(ours: Standing, theirs: Standing | None, margin: float = 0.5, max_drop: float = 1.0) -> Verdict:
    return decide(ours, theirs, margin, max_drop)


def test_the_first_student_is_promoted_and_nothing_is_claimed() -> None:
    verdict = ask(standing("new", (1, 2, 3)), None)
    assert verdict.promote and verdict.decision == "first" and verdict.gain is None
    assert "nothing was compared" in verdict.reasons[0]
    assert {line.verdict for line in verdict.domains} == {"new"}


def test_a_gain_of_exactly_the_margin_is_enough() -> None:
    verdict = ask(standing("new", (50.1, 60.1, 70.1)), standing("old", (50, 60, 70)), margin=0.1)
    assert verdict.promote and verdict.gain == pytest.approx(0.1)
    assert "a single seed on a side" in verdict.reasons[-1]
    assert not ask(standing("new", (50.09, 60.09, 70.09)), standing("old", (50, 60, 70)), margin=0.1).promote


def test_equal_students_stay_where_they_are_even_without_a_margin() -> None:
    assert not ask(standing("new", (50, 60, 70)), standing("old", (50, 60, 70)), margin=0).promote


def test_a_lost_domain_is_named_and_refuses_whatever_the_mean() -> None:
    verdict = ask(standing("new", (90, 90, 68.9)), standing("old", (50, 60, 70)), max_drop=1.0)
    assert verdict.decision == "refused" and not verdict.promote
    assert verdict.reasons[0] == "B night is down by 1.10 points (70.00 → 68.90); at most 1 is allowed"
    assert [(line.domain, line.verdict) for line in verdict.domains][-1] == ("night", "lost")
    assert ask(standing("new", (90, 90, 69)), standing("old", (50, 60, 70)), max_drop=1.0).promote


def test_the_source_may_go_down() -> None:
    better = standing("new", (60, 70, 80))
    worse_at_home = better.model_copy(
        update={"seeds": (SeedScores(seed=0, scores=(score("in-domain", 10.0), *better.seeds[0].scores[1:])),)}
    )
    assert ask(worse_at_home, standing("old", (50, 60, 70))).promote


def test_welch_error_is_the_textbooks() -> None:
    assert welch_error([1, 2, 3], [2, 4]) == pytest.approx((1 / 3 + 2 / 2) ** 0.5)
    assert welch_error([1.0], [2, 4]) is None


def test_a_gain_within_the_noise_is_refused_as_such() -> None:
    noisy, steady = standing("new", (40,) * 3, (64,) * 3), standing("old", (50,) * 3, (50.2,) * 3)
    verdict = ask(noisy, steady, margin=0.5, max_drop=50)
    assert verdict.gain == pytest.approx(1.9) and verdict.noise == pytest.approx(12.0, abs=0.01)
    assert verdict.reasons[0].startswith("the gain of +1.90 points is within the noise of training")
    assert ask(standing("new", (51.9,) * 3, (52.1,) * 3), steady, max_drop=50).promote


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (standing("old", (50, 60)), "measured on other domains: only the challenger has B night"),
        (
            standing("old", (50, 60, 70), protocol=PROTOCOL.model_copy(update={"flip": True})),
            "another protocol: flip True → False",
        ),
        (standing("old", (50, 60, 70), digest="e"), "the data of the target rain/val are not the same: e → d"),
    ],
)
def test_what_cannot_be_compared_is_not(other: Standing, said: str) -> None:
    verdict = ask(standing("new", (90, 90, 90)), other)
    assert verdict.decision == "not comparable" and not verdict.promote and verdict.gain is None
    assert any(said in reason for reason in verdict.reasons)
    assert "promote by hand" in verdict.reasons[-1]


def test_unknown_digests_are_not_taken_for_equal_ones() -> None:
    ours, theirs = (standing(name, (50, 60, 70)).model_copy(update={"data": {}}) for name in ("new", "old"))
    assert ask(ours, theirs).decision == "not comparable"


def test_other_data_of_the_source_do_not_matter() -> None:
    theirs = standing("old", (50, 60, 70))
    moved = theirs.model_copy(update={"data": theirs.data | {"in-domain/val": "other"}})
    assert ask(standing("new", (60, 70, 80)), moved).promote


def test_seeds_that_were_not_measured_alike_are_an_error() -> None:
    entries = (
        *standing("a", (1, 2, 3)).seeds,
        *standing("b", (1, 2, 3), protocol=PROTOCOL.model_copy(update={"scale": 2.0})).seeds,
    )
    mixed = Standing(name="mixed", seeds=entries, data={})
    with pytest.raises(GkdError, match="mixed: its seeds were not measured alike on B in-domain"):
        ask(mixed, standing("old", (1, 2, 3)))


miou = st.integers(0, 1000).map(lambda tenths: tenths / 10)
side = st.lists(st.tuples(miou, miou, miou), min_size=1, max_size=4)
bound = st.integers(0, 50).map(lambda tenths: tenths / 10)


@given(side, side, bound, bound, st.data())
def test_a_better_score_never_turns_a_promotion_into_a_refusal(
    ours: list[tuple[float, ...]], theirs: list[tuple[float, ...]], margin: float, drop: float, data: st.DataObject
) -> None:
    if not ask(standing("new", *ours), standing("old", *theirs), margin, drop).promote:
        return
    seed, domain = data.draw(st.integers(0, len(ours) - 1)), data.draw(st.integers(0, 2))
    raised = [list(values) for values in ours]
    raised[seed][domain] += data.draw(st.integers(1, 500)) / 10
    again = ask(standing("new", *raised), standing("old", *theirs), margin, drop)
    # One standard error is the largest at which this holds; at equality the last digit of a float may speak.
    assert again.promote or (again.noise is not None and abs((again.gain or 0) - again.noise) < 1e-6)


@given(side, side, bound, bound)
def test_no_two_students_beat_each_other(
    ours: list[tuple[float, ...]], theirs: list[tuple[float, ...]], margin: float, drop: float
) -> None:
    first, second = standing("a", *ours), standing("b", *theirs)
    there, back = ask(first, second, margin, drop), ask(second, first, margin, drop)
    assert not (there.promote and back.promote)
    assert there.gain == pytest.approx(-(back.gain or 0)) and there.noise == back.noise


@given(side, side, bound, bound)
def test_never_promoted_over_a_lost_domain(
    ours: list[tuple[float, ...]], theirs: list[tuple[float, ...]], margin: float, drop: float
) -> None:
    verdict = ask(standing("a", *ours), standing("b", *theirs), margin, drop)
    drops = [
        statistics.fmean(values[index] for values in theirs) - statistics.fmean(values[index] for values in ours)
        for index in range(3)
    ]
    if max(drops) > drop + 1e-6:
        assert not verdict.promote
    means = [statistics.fmean(statistics.fmean(values) for values in seeds) for seeds in (ours, theirs)]
    if verdict.promote:
        assert means[0] - means[1] >= margin - 1e-6
