"""The record of a measurement: its arithmetic, its file, its words and tables, and what a bundle says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from gkd_core.errors import GkdError
from gkd_core.predict.bundle import read_bundle, write_bundle
from gkd_core.predict.card import CARD
from gkd_core.predict.latency import (
    COLUMNS,
    UNKNOWN,
    Latency,
    ModelLatency,
    check_latency,
    conditions_of,
    label_of,
    read_latency,
    rows_of,
    summary,
)
from gkd_core.untrusted import LABEL
from tests.predict.conftest import bundle_of, segmentor_folder

SHA256 = "ab" * 32


def model_latency(**changes: Any) -> ModelLatency:
    facts: dict[str, Any] = {
        "arch": "vit_small_patch16_224", "decoder": "segformer", "sha256": SHA256, "precision": "fp32",
        "parameters": 22_000_000, "flops": 40e9, "median_seconds": 0.25, "p95_seconds": 0.3, "images_per_second": 8.0,
        "peak_bytes": 2**28,
    }  # fmt: skip
    return ModelLatency.model_validate(facts | changes)


TEACHER = model_latency(
    arch="vit_large_patch14_dinov2", sha256=None, parameters=303_000_000, flops=700e9, median_seconds=2.0, p95_seconds=2.1,
    images_per_second=1.0, peak_bytes=2**31,
)  # fmt: skip


def latency(**changes: Any) -> Latency:
    facts: dict[str, Any] = {
        "version": "0.1.0", "torch": "2.14.1+cu130", "device": "cpu", "processor": "AMD EPYC", "size": (512, 512), "batch": 2,
        "threads": 4, "warm_up": 3, "repeats": 20, "model": model_latency(), "against": TEACHER,
    }  # fmt: skip
    return Latency.model_validate(facts | changes)


@pytest.mark.parametrize("count", [2, 3, 19, 20, 21, 400])
def test_median_and_percentile_are_numpy_s(count: int) -> None:
    seconds = np.random.default_rng(count).exponential(size=count)
    found = summary(seconds.tolist())
    assert found.median == pytest.approx(np.median(seconds), rel=1e-12)
    assert found.p95 == pytest.approx(np.percentile(seconds, 95), rel=1e-12)


def test_the_ratio_is_the_other_s_figure_over_the_model_s() -> None:
    own, other, ratio = rows_of(latency(), "student", "teacher")
    assert own == ["student", "250", "300", "8", "256", "40", "22"]
    assert other == ["teacher", "2,000", "2,100", "1", "2,048", "700", "303"]
    assert ratio[1:] == ["8 ×", "7 ×", "0.125 ×", "8 ×", "17.5 ×", "13.8 ×"]
    assert {len(row) for row in (own, other, ratio)} == {len(COLUMNS) + 1}


def test_alone_it_has_one_line_and_what_is_unknown_is_no_number() -> None:
    assert len(rows_of(latency(against=None), "student", "")) == 1
    rows = rows_of(latency(model=model_latency(peak_bytes=None)), "student", "teacher")
    assert [row[4] for row in rows] == [UNKNOWN, "2,048", UNKNOWN]
    nothing = rows_of(latency(model=model_latency(flops=0, peak_bytes=0)), "student", "teacher")[2]
    assert nothing[4:6] == [UNKNOWN, UNKNOWN], "over nothing there is no ratio"


def test_the_conditions_are_all_told() -> None:
    words = conditions_of(latency())
    for part in ("512 × 512 pixels, 2 at once", "cpu (AMD EPYC), 4 threads", "fp32", "torch 2.14.1", "20 passes in turn after 3"):
        assert part in words
    mixed = latency(device="cuda:0", processor="NVIDIA H200", batch=1, model=model_latency(precision="bf16"))
    assert "512 × 512 pixels; cuda:0 (NVIDIA H200); bf16 and fp32;" in conditions_of(mixed)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    latency().write(tmp_path / "latency.json")
    assert read_latency(tmp_path / "latency.json") == latency()
    with pytest.raises(GkdError, match="no such file; write it with `gkd latency MODEL --output none.json`"):
        read_latency(tmp_path / "none.json")
    (tmp_path / "latency.json").write_text('{"kind": "latency"}')
    with pytest.raises(GkdError, match="not a Latency of this version .*; measure again with `gkd latency`"):
        read_latency(tmp_path / "latency.json")


@pytest.mark.parametrize(
    "changes",
    [{"arch": "<b>"}, {"decoder": "a|b"}, {"median_seconds": float("nan")}, {"median_seconds": 0.0}, {"flops": float("inf")},
     {"peak_bytes": -1}, {"sha256": "x"}, {"precision": "int8"}, {"extra": 1}],
)  # fmt: skip
def test_a_figure_that_is_none_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model_latency(**changes)


@pytest.mark.parametrize("changes", [{"processor": "=cmd()"}, {"processor": "a|b"}, {"device": "cpu`"}, {"size": (0, 1)}])
def test_words_of_a_card_hold_no_markup(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        latency(**changes)


@pytest.mark.parametrize("name", ["Intel(R) Xeon(R) CPU @ 2.90GHz", "| # <script>", "", "\x1b[2J", "(x" * 300, "NVIDIA H200"])
def test_whatever_a_processor_is_called_a_card_can_show_it(name: str) -> None:
    label = label_of(name)
    assert LABEL.fullmatch(label) and len(label) <= 200
    assert label_of("Intel(R) Xeon(R) CPU @ 2.90GHz") == "Intel(R) Xeon(R) CPU 2.90GHz"


def test_a_bundle_and_its_card_have_it(tmp_path: Path) -> None:
    folder = segmentor_folder(tmp_path / "segmentor")
    for name, record in (("both", latency()), ("alone", latency(against=None))):
        write_bundle(bundle_of(folder, latency=record), folder / "segmentor.safetensors", tmp_path / name)
        assert read_bundle(tmp_path / name).latency == record
    card = (tmp_path / "both" / CARD).read_text()
    for line in ("## What it takes", "Beside it **vit_large_patch14_dinov2, segformer decoder**.", f"| | {' | '.join(COLUMNS)} |",
                 "|---|---|---|---|---|---|---|", "| this student | 250 | 300 | 8 | 256 | 40 | 22 |",
                 "| ratio, second to first | 8 × |"):  # fmt: skip
        assert line in card, line
    alone = (tmp_path / "alone" / CARD).read_text()
    assert "| this student | 250 |" in alone and "ratio" not in alone and "Beside it" not in alone
    write_bundle(bundle_of(folder), folder / "segmentor.safetensors", tmp_path / "none")
    assert "What it takes" not in (tmp_path / "none" / CARD).read_text()


def test_that_of_another_student_is_refused() -> None:
    check_latency(latency(), SHA256)
    with pytest.raises(GkdError, match="latency of another student .*sha256 abababababab; this one is cdcdcdcdcdcd"):
        check_latency(latency(), "cd" * 32)
    with pytest.raises(GkdError, match="latency of another student"):
        check_latency(latency(model=model_latency(sha256=None)), SHA256)
