"""Progress where there is no terminal: a line, with the rate where a unit is given."""

from __future__ import annotations

import re

import pytest

from gkd_core.training.progress import progress


@pytest.mark.parametrize(("unit", "pace"), [(None, ""), ("images", r" \(\d+\.\d images/s\)")])
def test_the_last_line_has_what_was_done_and_the_rate(capfd: pytest.CaptureFixture[str], unit: str | None, pace: str) -> None:
    with progress("predict", 4, unit=unit) as advance:
        for done in range(1, 5):
            advance(done)
    assert re.fullmatch(rf"predict: 4 of 4 in \d+ s{pace}\n", capfd.readouterr().err)
