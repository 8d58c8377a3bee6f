"""Which stages a flow runs side by side, and which one by one."""

from __future__ import annotations

from collections.abc import Sequence

from gkd_core.settings import Settings
from gkd_core.stages.facts import names_where
from gkd_core.stages.run import StageRun


def ray_stages(settings: Settings) -> tuple[str, ...]:
    """Stages whose work Ray's workers do: they wait for the cluster, and run one by one."""
    return names_where(lambda stage: stage.on_ray(settings))


def own_ray_stages(settings: Settings) -> tuple[str, ...]:
    """Those of them that need a cluster here: stage one may have been given to one elsewhere."""
    return names_where(lambda stage: stage.on_ray(settings) and not (stage.distills and settings.compute.elsewhere))


def waves(runs: Sequence[StageRun], settings: Settings) -> list[list[StageRun]]:
    """The plan cut into groups that may run side by side: runs of one stage, for different sources.

    Stages on Ray stay alone: each fills the cluster.
    """
    grouped: list[list[StageRun]] = []
    for run in runs:
        alone = run.stage in ray_stages(settings) or not grouped or len(grouped[-1]) >= settings.compute.stages_at_once
        if alone or grouped[-1][0].stage != run.stage:
            grouped.append([run])
        else:
            grouped[-1].append(run)
    return grouped
