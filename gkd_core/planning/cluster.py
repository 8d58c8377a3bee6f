"""A cluster as the numbers that determine a training's time; read from a YAML file, shipped or the user's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from gkd_core.documents import DocumentError, parse_yaml
from gkd_core.errors import SettingsError
from gkd_core.messages import given_value, one_line, shown
from gkd_core.settings import Section, read_yaml_mapping
from gkd_core.settings.base import PositiveFloat, PositiveInt, PositiveShare, Share

PRESETS = resources.files("gkd_core.planning") / "clusters"


class Cluster(Section):
    """Hosts that train together. All bandwidths are in 10^9 bytes a second and one direction.

    A worker is one process with one GPU; where `device` is cpu, one with a core.
    """

    device: Literal["cuda", "cpu"] = Field("cuda", description="What a worker computes on.")
    nodes: PositiveInt = Field(1, description="Hosts.")
    gpus_per_node: PositiveInt = Field(8, description="GPUs of a host, and so workers; on CPUs, workers of a host.")
    peak_tflops: PositiveFloat = Field(description="Peak of one GPU, TFLOP/s.")
    fp32_tflops: PositiveFloat | None = Field(None, description="Its peak where precision is fp32; null: the same.")
    mfu: PositiveShare = Field(description="Share of the peak that training reaches.")
    update_floor: float = Field(0.0, ge=0, description="Least seconds of an update, however few images it has for a worker.")
    contention: float = Field(1.0, ge=1, description="How many times longer a worker computes when all of its host's do.")
    straggling: float = Field(0.0, ge=0, description="Standard deviation of a worker's time of an update, as a share of it.")
    overlap: Share = Field(0.0, description="Share of the last backward pass in which gradients are exchanged meanwhile.")
    intra_bandwidth: PositiveFloat = Field(description="Of a GPU to its neighbour on the host.")
    intra_latency: float = Field(0.0, ge=0, description="Seconds of one step of an exchange on a host.")
    inter_bandwidth: PositiveFloat = Field(description="Of a host to the others, all its network cards together.")
    inter_latency: float = Field(0.0, ge=0, description="Seconds of one step of an exchange between hosts.")
    cores_per_node: PositiveInt = Field(description="CPU cores of a host.")
    jpeg_megapixels: PositiveFloat = Field(description="Megapixels of a JPEG that a core decodes in a second.")
    png_megapixels: PositiveFloat = Field(description="Megapixels of a PNG that a core decodes in a second.")
    released_megapixels: PositiveFloat = Field(description="Megapixels of crop that a core makes in a second, augment released.")
    light_megapixels: PositiveFloat = Field(description="The same, augment light; stage two's views count as these.")
    storage_node_bandwidth: PositiveFloat = Field(description="Of a host from where the images lie.")
    storage_bandwidth: PositiveFloat | None = Field(
        None, description="Of all hosts together from where the images lie; null: each has disks of its own."
    )
    checkpoint_bandwidth: PositiveFloat = Field(description="At which one worker writes a checkpoint, to its end.")
    checkpoint_latency: float = Field(0.0, ge=0, description="Seconds that a checkpoint takes beside its bytes.")
    start_seconds: float = Field(0.0, ge=0, description="Until a stage's workers train: processes, imports, models.")
    node_mtbf_hours: PositiveFloat | None = Field(None, description="Mean hours between failures of one host; null: none fail.")
    price_gpu_hour: float = Field(0.0, ge=0, description="Of one GPU with its share of the host.")
    price_gb_month: float = Field(0.0, ge=0, description="Of 10^9 bytes kept for a month.")
    price_thousand_reads: float = Field(0.0, ge=0, description="Of 1000 GET requests.")
    price_thousand_writes: float = Field(0.0, ge=0, description="Of 1000 PUT requests.")

    @property
    def workers(self) -> int:
        """Workers of all hosts."""
        return self.nodes * self.gpus_per_node

    def nodes_of(self, workers: int) -> int:
        """Hosts that so many workers lie on, filled one after the other."""
        return -(-workers // self.gpus_per_node)


def preset_names() -> list[str]:
    """Names of the clusters shipped with the package, in alphabetical order."""
    return sorted(entry.name.removesuffix(".yaml") for entry in PRESETS.iterdir() if entry.name.endswith(".yaml"))


def load_cluster(name: str, changes: Sequence[str] = ()) -> Cluster:
    """Read a shipped cluster by its name, or one's own from a file that ends in .yaml or .yml.

    Args:
        changes: single numbers on top, each as key=value.

    Raises:
        SettingsError: there is no such cluster, or a key is unknown, of the wrong type or impossible; one line for each.
    """
    tree = {**_read(name), **dict(_parsed(change) for change in changes)}
    try:
        return Cluster.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("\n".join(f"cluster {name}: {_line(item)}" for item in error.errors())) from None


def _read(name: str) -> dict[str, Any]:
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise SettingsError(f"--cluster {name}: no such file; shipped are: {', '.join(preset_names())}")
        return read_yaml_mapping(Path(name))
    if name not in preset_names():
        raise SettingsError(f"--cluster {shown(name)}: unknown; shipped are: {', '.join(preset_names())}; or give a file .yaml")
    with resources.as_file(PRESETS / f"{name}.yaml") as path:
        return read_yaml_mapping(path)


def _parsed(change: str) -> tuple[str, Any]:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"--set-cluster {shown(change)}: expected key=value, such as --set-cluster mfu=0.3")
    try:
        return key.strip(), parse_yaml(text)
    except DocumentError as error:
        raise SettingsError(f"--set-cluster {shown(change)}: the value is not valid YAML ({error}); quote it") from None


def _line(item: Mapping[str, Any]) -> str:
    """One line for one pydantic error: the key, what was given, what is allowed."""
    key = shown(".".join(str(part) for part in item["loc"]))
    if item["type"] == "missing":
        return f"{key}: missing; {Cluster.model_fields[key].description}"
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, Cluster.model_fields, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return f"{key}: unknown key (given: {given_value(item['input'])}); allowed here: {', '.join(Cluster.model_fields)}{hint}"
    reason = one_line(item["msg"])
    return f"{key}: given {given_value(item['input'])}; {reason[0].lower()}{reason[1:]}"
