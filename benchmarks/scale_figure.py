"""Where a run bends as GPUs are added, as a picture: the time of stage 1a and what it goes to, by number of GPUs.

Nothing is measured: every figure is `gkd plan`'s. Example:

    python benchmarks/scale_figure.py --output docs/pictures/scale.png
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gkd_core.data.catalog.load import load_catalog
from gkd_core.files import atomic_file
from gkd_core.planning.cluster import Cluster, load_cluster
from gkd_core.planning.demand import Demand, demands
from gkd_core.planning.simulate import StageEstimate, simulate_stage
from gkd_core.planning.work import StageWork, plan_work
from gkd_core.settings import load_settings
from gkd_core.stages import Recipe

NODES = (1, 2, 4, 8, 16, 32, 64, 128)
PARTS = ("compute", "input", "storage", "all-reduce", "stragglers", "checkpoints", "failures", "start")
# Title, cluster, images of a GPU in an update (None: the published batch as far as it divides), and changes of the settings.
LOADERS = ("compute.loaders=12",)
SCENES: tuple[tuple[str, str, int | None, tuple[str, ...]], ...] = (
    ("as published, no loaders", "h100-cluster", None, ()),
    ("as published, 12 loaders", "h100-cluster", None, LOADERS),
    ("64 images a GPU, light", "h100-cluster", 64, (*LOADERS, "distill_proxy.augment=light")),
    ("the same on Ethernet", "h100-ethernet", 64, (*LOADERS, "distill_proxy.augment=light")),
)


def main(
    output: Annotated[Path, typer.Option(help="Picture to write, .png.")] = Path("docs/pictures/scale.png"),
    profile: Annotated[str, typer.Option(help="Profile whose stage 1a is drawn.")] = "f2l-dinov2-l-deit-b",
) -> None:
    """Draw stage 1a of a profile on more and more GPUs."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, len(SCENES), sharex=True, sharey="row")
    work = _work(profile)
    for column, (title, cluster, share, changes) in enumerate(SCENES):
        estimates = _estimates(_demand(profile, work, changes), load_cluster(cluster), share)
        _draw(upper[column], lower[column], title, estimates)
    upper[0].set_ylabel("time of stage 1a, hours")
    lower[0].set_ylabel("share of the time")
    lower[-1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"Simulated: stage 1a of {profile} on hosts of 8 H100", fontsize=10)
    with atomic_file(output) as temporary:
        figure.savefig(temporary, dpi=80, format="png", metadata={"Software": None})


def _estimates(demand: Demand, cluster: Cluster, share: int | None) -> list[StageEstimate]:
    """Of every number of hosts that can share the batch."""
    found = []
    for nodes in NODES:
        hosts = cluster.model_copy(update={"nodes": nodes})
        if share is not None:
            found.append(simulate_stage(_with_batch(demand, share * hosts.workers), hosts))
        elif demand.work.batch_size % hosts.workers == 0:
            found.append(simulate_stage(demand, hosts))
    return found


def _work(profile: str) -> StageWork:
    """The arithmetic of stage 1a, which no scene changes."""
    settings = load_settings(None, profile)
    works = plan_work(Recipe(settings, load_catalog(settings.data.catalogs)), Path.cwd())
    return next(work for work in works if work.name == "distill-proxy")


def _demand(profile: str, work: StageWork, changes: Sequence[str]) -> Demand:
    settings = load_settings(None, profile, changes)
    return demands(Recipe(settings, load_catalog(settings.data.catalogs)), Path.cwd(), [work])[0]


def _with_batch(demand: Demand, batch: int) -> Demand:
    """The same views in updates of another size."""
    updates = max(1, (demand.work.views or 0) // batch)
    return dataclasses.replace(
        demand, work=dataclasses.replace(demand.work, batch_size=batch, updates=updates, views=updates * batch)
    )


def _draw(upper: Axes, lower: Axes, title: str, estimates: Sequence[StageEstimate]) -> None:
    workers = [estimate.workers for estimate in estimates]
    hours = [estimate.seconds / 3600 for estimate in estimates]
    upper.loglog(workers, hours, "o-", color="black", markersize=3, label="simulated", base=2)
    upper.loglog(workers, [hours[0] * workers[0] / count for count in workers], ":", color="grey", label="proportional", base=2)
    upper.set_title(title, fontsize=9)
    upper.set_yticks([1 / 16, 1 / 4, 1, 4, 16], ["1/16", "1/4", "1", "4", "16"])
    upper.legend(frameon=False, fontsize=7)
    shares = [[estimate.parts[part] / estimate.seconds for estimate in estimates] for part in PARTS]
    lower.stackplot(workers, shares, labels=PARTS, colors=[colormaps["tab10"](index) for index in range(len(PARTS))])
    lower.set(xlabel="GPUs", ylim=(0, 1), xlim=(8, 1024))
    lower.set_xticks([8, 32, 128, 512], ["8", "32", "128", "512"])
    for axes in (upper, lower):
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    typer.run(main)
