"""`gkd plan`: what a run does, and what it will cost here, on one GPU or on a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkd_core.cli.options import Profile, Set, one_profile, read_settings

if TYPE_CHECKING:
    from gkd_core.planning.cluster import Cluster
    from gkd_core.planning.estimate import RunEstimate
    from gkd_core.planning.work import StageWork
    from gkd_core.stages import Recipe

CLUSTER = "h100-cluster"  # where --nodes alone is given
ON_A_CLUSTER = "On a cluster"


def plan(
    name: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help="The profile, as with --profile.")] = None,
    profile: Profile = None,
    set_: Set = None,
    mfu: Annotated[
        float | None, typer.Option(min=0.001, max=1, help="Share of the peak that training reaches; 0.4, or the cluster's.")
    ] = None,
    peak_tflops: Annotated[
        float | None,
        typer.Option(min=0.001, help="Peak of one GPU, in TFLOP/s; the cluster's, or 989: an H100's in bf16, without sparsity."),
    ] = None,
    proxy_images: Annotated[
        int | None, typer.Option(min=1, help="Images of the proxy, instead of those found: 14200000 for ImageNet-21k.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Hosts to train on.", rich_help_panel=ON_A_CLUSTER)] = None,
    gpus_per_node: Annotated[int | None, typer.Option(min=1, help="GPUs of each host.", rich_help_panel=ON_A_CLUSTER)] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help=f"A shipped cluster ({CLUSTER}) or a file .yaml of one.", rich_help_panel=ON_A_CLUSTER),
    ] = None,
    set_cluster: Annotated[
        list[str] | None,
        typer.Option(help="One number of it, such as inter_bandwidth=50. Can be repeated.", rich_help_panel=ON_A_CLUSTER),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(help="Images a second of one worker, measured, as JSON; instead of FLOPs.", rich_help_panel=ON_A_CLUSTER),
    ] = None,
    bytes_per_image: Annotated[
        float | None, typer.Option(min=1, help="Bytes of a proxy image.", rich_help_panel=ON_A_CLUSTER)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON instead.")] = False,
) -> None:
    """List the stages that these settings ask for, what each reads and writes, and the work that it is estimated to be.

    With --nodes or --cluster: also the time, cost, network and storage of the run on a cluster, and what bounds it.
    """
    from gkd_core.errors import SettingsError
    from gkd_core.planning.work import Machine, plan_work
    from gkd_core.stages import Recipe

    recipe = Recipe.of(read_settings(one_profile(name, profile), set_))
    numbers = {"nodes": nodes, "gpus_per_node": gpus_per_node, "mfu": mfu, "peak_tflops": peak_tflops}
    hosts = _cluster(cluster, nodes, [f"{key}={value}" for key, value in numbers.items() if value is not None], set_cluster)
    if hosts is None and any((gpus_per_node, measured, bytes_per_image)):
        raise SettingsError("--gpus-per-node, --measured, --bytes-per-image: only with --nodes or --cluster")
    works = plan_work(recipe, Path.cwd(), proxy_images)
    estimate = None if hosts is None else _estimate(recipe, works, hosts, measured, bytes_per_image)
    if as_json:
        typer.echo(json.dumps(_tree(works, hosts, estimate), indent=1))
        return
    _list_stages(recipe)
    from gkd_core.planning.table import print_work

    if hosts is None:
        print_work(works, Machine(peak_tflops or 989, mfu or 0.4))
    else:
        print_work(works, Machine(hosts.peak_tflops, hosts.mfu))
    if hosts is not None and estimate is not None:
        from gkd_core.planning.table import print_estimate

        print_estimate(estimate, hosts, recipe.settings)


def _cluster(name: str | None, nodes: int | None, numbers: list[str], changes: list[str] | None) -> Cluster | None:
    """The cluster that the options describe; None where they name none."""
    if name is None and nodes is None and not changes:
        return None
    from gkd_core.planning.cluster import load_cluster

    return load_cluster(name or CLUSTER, [*numbers, *(changes or [])])


def _estimate(
    recipe: Recipe, works: list[StageWork], hosts: Cluster, file: Path | None, proxy_bytes: float | None
) -> RunEstimate:
    from gkd_core.planning.demand import demands
    from gkd_core.planning.estimate import estimate_run
    from gkd_core.planning.paces import NOTHING, read_paces
    from gkd_core.stages.waves import waves

    grouped = [[run.name for run in wave] for wave in waves(recipe.plan, recipe.settings)]
    paces = NOTHING if file is None else read_paces(file, [work.name for work in works])
    asked = demands(recipe, Path.cwd(), works, proxy_bytes)
    return estimate_run(asked, grouped, hosts, paces, recipe.settings.compute.max_failures)


def _list_stages(recipe: Recipe) -> None:
    for run in recipe.plan:
        inputs = ", ".join(str(path) for path in run.inputs[:4]) + (
            f" and {len(run.inputs) - 4} more" if len(run.inputs) > 4 else ""
        )
        typer.echo(f"{run.command}\n    reads   {inputs or 'settings only'}\n    writes  {run.output}")


def _tree(works: list[StageWork], hosts: Cluster | None, estimate: RunEstimate | None) -> dict[str, object]:
    import dataclasses

    tree: dict[str, object] = {
        "work": [
            {**dataclasses.asdict(work), "costs": {part: cost._asdict() for part, cost in work.costs.items()}} for work in works
        ]
    }
    if hosts is not None and estimate is not None:
        tree |= {"cluster": hosts.model_dump(mode="json"), "estimate": estimate.as_tree()}
    return tree
