"""`gkd plan` on a cluster, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.errors import SettingsError


@pytest.fixture
def project(tiny_tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose params.yaml has the tiny models on the paper's data."""
    data = {"world": None, "root": "data", "proxy": "imagenet/train", "benchmarks": ["G2C"]}
    distill = tiny_tree["distill_proxy"] | {"batch_size": 64, "updates": 1000}
    tree = tiny_tree | {"data": data, "distill_proxy": distill, "distill_source": distill}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "130")
    return tmp_path


def plan(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_cluster_adds_a_table_and_json_has_its_figures(project: Path) -> None:
    options = ["--nodes", "4", "--set-cluster", "price_gpu_hour=5", "--mfu", "0.2", "--proxy-images", "14200000"]
    table, tree = plan(*options), json.loads(plan(*options, "--json"))
    assert "Simulated on 4 × 8 workers" in table
    assert "at 20% MFU" in table
    row = next(line.split() for line in table.splitlines() if line.strip().startswith("distill-proxy") and "%" in line)
    (proxy, *_) = tree["estimate"]["stages"]
    assert row[:2] == ["distill-proxy", "32"]
    assert proxy["limit"] in row
    assert f"{proxy['efficiency']:.1%}" in row
    assert "its batch divides among at most 64 workers" in table
    assert "To run it like this: --set compute.workers=32" in table
    assert tree["cluster"]["mfu"] == 0.2
    assert tree["estimate"]["costs"]["gpus"] == pytest.approx(5 * tree["estimate"]["gpu_hours"])
    assert tree["work"][0]["images"] == 14_200_000


def test_without_a_cluster_there_is_none(project: Path) -> None:
    assert "Simulated" not in plan()
    assert list(json.loads(plan("--json"))) == ["work"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "3"], r"--nodes 3: distill-proxy: batches of 64 images .* nearest possible --nodes: 2 \(16 workers\) or 4"),
        (["--cluster", "h1"], "--cluster h1: unknown; shipped are: h100-cluster"),
        (["--nodes", "1", "--set-cluster", "node=3"], "cluster h100-cluster: node: unknown key"),
        (["--measured", "m.json"], "--measured, --bytes-per-image: only with --nodes or --cluster"),
        (["--nodes", "1", "--measured", "m.json"], "--measured m.json: no such file"),
    ],
)
def test_what_cannot_be_is_said(project: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        plan(*arguments)
