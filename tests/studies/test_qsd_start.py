"""The study of QSD's start: what its variants share, and how its runs become a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gkd_core.records import Score, ScoreProtocol
from gkd_core.settings import load_settings
from studies.qsd_start import STUDIES, Outcome, table, variants_of

PROTOCOL = ScoreProtocol(
    scale=1.0, max_size=None, labels_resized=False, window=(64, 64), stride=(64, 64), classes=2, selection="last checkpoint"
)
START = {"method", "distill_proxy.warm_start.updates", "distill_proxy.warm_start.queries"}


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        yield path, tree
        return
    for key, value in tree.items():
        yield from leaves(value, f"{path}.{key}".removeprefix("."))


@pytest.mark.parametrize("name", list(STUDIES))
def test_variants_differ_in_their_start_alone(name: str) -> None:
    study = STUDIES[name]
    trees = {
        variant: dict(leaves(load_settings(profile=study.profile, overrides=[*study.overrides, *own]).model_dump(mode="json")))
        for variant, own in variants_of(study, ablations=False).items()
    }
    rival = trees["two-stage MSE"]
    for tree in trees.values():
        assert {key for key in rival if tree[key] != rival[key]} <= START
    assert trees["QSD, published"]["distill_proxy.warm_start.updates"] == 0
    assert 0 < trees["QSD, warm start by matching"]["distill_proxy.warm_start.updates"] < rival["distill_proxy.updates"]


def score(domain: str, miou: float) -> Score:
    return Score(
        method="gkd",
        teacher="t",
        student="s",
        seed=0,
        benchmark="G2C",
        source="gta5",
        domain=domain,
        dataset=f"d/{domain}",
        in_domain=domain == "in-domain",
        miou=miou,
        class_iou={},
        images=1,
        protocol=PROTOCOL,
    )


def test_table_pools_seeds_and_takes_the_attention_at_the_end() -> None:
    steps = ({"matching_weight": 0.1, "attention_entropy": 0.9}, {"matching_weight": 0.5, "attention_entropy": 0.25})
    outcomes = [
        Outcome("MSE", 0, (score("in-domain", 50.0), score("night", 20.0), score("day", 30.0)), ()),
        Outcome("QSD", 0, (score("in-domain", 60.0), score("night", 10.0), score("day", 10.0)), steps),
        Outcome("QSD", 1, (score("in-domain", 62.0), score("night", 12.0), score("day", 12.0)), steps),
    ]
    lines = table(outcomes).splitlines()
    assert lines[2] == "| MSE | 50.0 | 25.0 | 25.0 | – | – |"
    assert lines[3] == "| QSD | 61.0 ± 1.4 | 11.0 ± 1.4 | 11.0 ± 1.4 | 0.50 | 0.25 |"
