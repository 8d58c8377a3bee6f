"""Clusters from files, by name, and what is wrong with them."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
import yaml

from gkd_core.errors import SettingsError
from gkd_core.planning.cluster import PRESETS, Cluster, load_cluster, preset_names


@pytest.mark.parametrize("name", preset_names())
def test_shipped_clusters_are_whole_and_every_number_says_where_it_is_from(name: str) -> None:
    assert isinstance(load_cluster(name), Cluster)
    with resources.as_file(PRESETS / f"{name}.yaml") as path:
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    sources = r"assumed|data sheet|list price|measured on .* by benchmarks/\w+\.py|interruptions|gkd plan --nodes"
    assert [line for line in lines if not re.search(f"#.*({sources})", line)] == ["device: cuda"]


def test_ones_own_file_and_single_numbers_on_top(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(load_cluster("h100-host").model_dump(mode="json")))
    assert load_cluster(str(file)) == load_cluster("h100-host")
    changed = load_cluster(str(file), ["nodes=3", "mfu=0.2", "node_mtbf_hours=null", "inter_latency=1e-6"])
    assert (changed.nodes, changed.mfu, changed.node_mtbf_hours, changed.inter_latency) == (3, 0.2, None, 1e-6)
    assert changed.workers == 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("intra_bandwith=3", r"cluster h100-host: intra_bandwith: unknown key \(given: 3\); .*did you mean 'intra_bandwidth'\?"),
        ("mfu=2", r"cluster h100-host: mfu: given 2; input should be less than or equal to 1"),
        ("nodes=0", r"cluster h100-host: nodes: given 0; input should be greater than 0"),
        ("nodes", r"--set-cluster nodes: expected key=value"),
        ("mfu=[", r"--set-cluster mfu=\[: the value is not valid YAML"),
    ],
)
def test_a_wrong_number_is_one_line(change: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load_cluster("h100-host", [change])
    assert "\n" not in str(caught.value)


def test_an_unknown_cluster_and_a_missing_key_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--cluster h200: unknown; shipped are: h100-cluster, h100-ethernet, h100-host"):
        load_cluster("h200")
    with pytest.raises(SettingsError, match=r"--cluster .*none.yaml: no such file"):
        load_cluster(str(tmp_path / "none.yaml"))
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(load_cluster("h100-host").model_dump(mode="json", exclude={"mfu"})))
    with pytest.raises(SettingsError, match=r"mfu: missing; Share of the peak that training reaches"):
        load_cluster(str(file))
