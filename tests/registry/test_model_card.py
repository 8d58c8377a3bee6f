"""The model card, read."""

from __future__ import annotations

import pytest

from gkd_core.models.licences import UNKNOWN_LICENCE, weights_licence
from gkd_core.records import Score, ScoreProtocol, StudentSize
from gkd_core.registry.gate import SeedScores, Standing, decide
from gkd_core.registry.model_card import FILE, DataUse, ModelFacts, render_card, summary_of
from gkd_core.settings import EncoderSettings

PROTOCOL = ScoreProtocol(
    scale=0.5, max_size=None, labels_resized=False, window=(32, 32), stride=(16, 16), classes=3, selection="last checkpoint"
)


def _entry(seed: int, fog: float) -> SeedScores:
    scores = tuple(
        Score(
            method="gkd", teacher="t", student="s", seed=seed, benchmark="B", source="toy", domain=domain,
            dataset=f"{domain}/val", in_domain=domain == "in-domain", miou=miou, class_iou={}, images=2, protocol=PROTOCOL,
        )
        for domain, miou in (("in-domain", 80.0), ("fog", fog))
    )  # fmt: skip
    return SeedScores(seed=seed, scores=scores)


@pytest.fixture
def facts() -> ModelFacts:
    encoder = EncoderSettings(arch="vit_base_patch14_dinov2", weights="hub")
    return ModelFacts(
        model="gkd-student-toy", source="toy", method="gkd", method_summary="features first", seed=1, teacher=encoder,
        student=encoder, decoder="linear", classes=("a", "b", "c"), parameters=1234567, encoder_frozen=True,
        updates={"distill-proxy": 2400, "learn-task": 4}, sha256="f00", window=(32, 48),
        data=(DataUse(reference="fog/val", part="target", digest="d", pinned=True),),
        standing=Standing(name="gkd-student-toy", seeds=(_entry(0, 50), _entry(1, 60)), data={"fog/val": "d"}),
        teacher_licence="apache-2.0", student_licence=UNKNOWN_LICENCE, fingerprint="0123", revision="abc",
        dirty="true", flow_run="f", mlflow_run="r",
    )  # fmt: skip


def test_the_card_is_whole_and_every_table_is_a_table(facts: ModelFacts) -> None:
    card = render_card(facts, None)
    lines = card.splitlines()
    assert "| B | fog | 55.00 | 50.00 | 60.00 |" in lines
    assert "| **mean** | **targets** | **55.00** | 50.00 | 60.00 |" in lines
    assert "mIoU in %, mean over seeds 0, 1; this file is seed 1, chosen by the source's validation." in lines
    assert "Protocol: images × 0.5, window 32 × 32, stride 16 × 16, scales 1, fp32, last checkpoint." in lines
    assert "| updates | distill-proxy 2,400, learn-task 4 |" in lines
    assert "| code | git `abc` with changes that are not committed |" in lines
    assert "**they are no longer scores on unseen data**" in card
    for index, line in enumerate(lines):
        if set(line) == {"|", "-"}:
            assert line.count("|") == lines[index - 1].count("|") == lines[index + 1].count("|"), lines[index - 1 : index + 2]


def test_it_tells_what_the_student_saves_where_that_was_counted(facts: ModelFacts) -> None:
    assert not [line for line in render_card(facts, None).splitlines() if "GFLOPs" in line]
    size = StudentSize(parameters=1_234_567, flops=2e9, window=(32, 48), weights_bytes=1)
    alone = render_card(facts.model_copy(update={"size": size}), None).splitlines()
    assert "| to run it | 2 GFLOPs a window of 32 × 48 pixels |" in alone
    beside = size.model_copy(update={"teacher_parameters": 12_345_670, "teacher_flops": 6e9})
    (line,) = [line for line in render_card(facts.model_copy(update={"size": beside}), None).splitlines() if "GFLOPs" in line]
    assert line.endswith("48 pixels; its teacher in its place: 12,345,670 parameters (10 ×), 6 GFLOPs (3 ×) |")


def test_the_verdict_is_in_it(facts: ModelFacts) -> None:
    assert "**Gate: not asked yet.**" in render_card(facts, None)
    card = render_card(facts, decide(facts.standing, None, 0.5, 1))
    assert "**Gate: promoted.**" in card and "- gkd-student-toy is promoted: there is no champion yet" in card


def test_a_long_card_is_cut_at_a_paragraph_and_says_so(facts: ModelFacts) -> None:
    card = render_card(facts, None)
    short = summary_of(card, 1500)
    assert len(short) <= 1500 and short.endswith(f"the whole card is {FILE} among the model's artifacts.\n")
    assert card.startswith(short.partition("\n\nCut here")[0] + "\n\n")
    assert summary_of(card, 100_000) == card


@pytest.mark.parametrize(
    ("weights", "stated", "licence"),
    [
        ("hub", None, "apache-2.0 (as timm states it)"),
        ("hub", "CC-BY-NC-4.0", "CC-BY-NC-4.0"),
        ("teacher.safetensors", None, UNKNOWN_LICENCE),
        ("package:some_weights", None, UNKNOWN_LICENCE),
    ],
)
def test_a_licence_is_stated_or_called_unknown_and_never_guessed(weights: str, stated: str | None, licence: str) -> None:
    assert weights_licence(EncoderSettings(arch="vit_base_patch14_dinov2", weights=weights), stated) == licence


def test_an_architecture_that_timm_states_no_licence_for() -> None:
    assert weights_licence(EncoderSettings(arch="no_such_architecture", weights="hub"), None) == UNKNOWN_LICENCE
