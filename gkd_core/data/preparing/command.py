"""Datasets prepared one after the other, and a line about each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gkd_core.data.catalog.load import Catalog
from gkd_core.data.files.shards import ShardIndex
from gkd_core.data.preparing.building import Bar, build_set, finished_index
from gkd_core.data.preparing.plan import plan_domain
from gkd_core.data.preparing.workers import sharing


def prepare_domains(
    catalog: Catalog,
    references: Sequence[str],
    root: Path,
    output: Path,
    *,
    shrunk: Sequence[str],
    shard_bytes: int,
    jobs: int,
    bar: Bar,
    say: Callable[[str], None],
) -> None:
    """Write the sets of every `dataset/split` of `references`, found below `root`, into the folder `output`.

    Those of `shrunk` are brought to the sizes at which they are evaluated. All of them are listed, and what is there already
    is looked at, before anything is written.

    Raises:
        DataError: a dataset is not whole, a file is damaged, there is no room, or `output` holds other sets.
    """
    plans = [plan for name in references for plan in plan_domain(catalog, name, root, name in shrunk, shard_bytes)]
    found = [finished_index(plan, output) for plan in plans]
    with sharing(jobs) as share_out:
        for plan, index in zip(plans, found, strict=True):
            if index is not None:
                say(f"{plan.place}: up to date ({_size(index)})")
            else:
                say(f"{plan.place}: {_size(build_set(plan, output, share_out, bar))}")


def _size(index: ShardIndex) -> str:
    amount = sum(shard.bytes for shard in index.shards) / 1e6
    return f"{len(index.members.names)} files in {len(index.shards)} shards, {amount:.1f} MB"
