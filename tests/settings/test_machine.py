"""Where stage one runs, and with how many workers."""

from __future__ import annotations

import pytest

from gkd_core.errors import SettingsError
from gkd_core.settings import load_settings

ELSEWHERE = ("compute.address=http://head:8265", "compute.storage=s3://bucket/runs")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (ELSEWHERE[:1], "needs storage, a bucket"),
        (("compute.address=head:8265",), "compute.address"),
        (("compute.address=http://user:password@head:8265", ELSEWHERE[1]), "compute.address"),
        (("compute.storage=/mnt/disk",), "compute.storage"),
        (("compute.workers=4", "compute.max_workers=2"), "max_workers: 2 is less than workers"),
        (("compute.workers=0", "compute.max_workers=2"), "workers is 0"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_by_name(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as error:
        load_settings(None, "demo", overrides)
    assert "\n" not in str(error.value)


def test_a_cluster_elsewhere_is_taken() -> None:
    compute = load_settings(None, "demo", [*ELSEWHERE, "compute.workers=2", "compute.max_workers=8"]).compute
    assert (compute.workers, compute.max_workers, compute.storage) == (2, 8, "s3://bucket/runs")
