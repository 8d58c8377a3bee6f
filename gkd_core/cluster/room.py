"""Room on Ray for a group of workers: waited for aloud, and not for ever.

Ray itself waits in silence and without an end: for what the cluster does not have, and for nodes that joined it but cannot reach
the one that our program runs on, as where the head took an address of another network.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gkd_core.errors import PlatformError
from gkd_core.messages import one_line

STEP_SECONDS = 1.0  # so that a signal is heard
QUIET_SECONDS = 30.0
# More than Ray sends along with a call: a worker has to fetch it from the node of who asks.
PARCEL = bytes(256 * 1024)


def wait_for_room(title: str, workers: int, device: str, minutes: float) -> None:
    """Wait until the joined cluster has room for so many workers at once, and each place answers.

    The room is asked for as the group will ask for it, so that an autoscaler hears of it, and is given back.

    Args:
        title: what the workers are for, as messages begin with it.
        device: of each worker, "cuda" or "cpu".

    Raises:
        PlatformError: there is none in time; the message says what is missing and where to look.
    """
    kind = "GPU" if device == "cuda" else "CPU"
    deadline = time.monotonic() + minutes * 60
    group = placement_group([{kind: 1}] * workers)
    try:
        if not _waited(group.wait, deadline, lambda: f"{title}: waits for Ray to have room: {_missing(workers, kind)}"):
            raise PlatformError(
                f"{title}: Ray had no room within {minutes:g} min (compute.start_minutes): {_missing(workers, kind)}. "
                f"`ray status` on the head names its nodes and what they are asked for: start nodes, or lower compute.workers"
            )
        if len(_nodes()) > 1:
            _hear_all(title, group, workers, kind, deadline, minutes)
    finally:
        remove_placement_group(group)


def _hear_all(title: str, group: PlacementGroup, workers: int, kind: str, deadline: float, minutes: float) -> None:
    parcel = ray.put(PARCEL)
    place = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index) for index in range(workers)]
    amount = {"num_gpus": 1, "num_cpus": 0} if kind == "GPU" else {"num_cpus": 1}
    asked = [_answer.options(scheduling_strategy=strategy, **amount).remote(parcel) for strategy in place]

    def silent() -> list[Any]:
        return ray.wait(asked, num_returns=workers, timeout=0)[1]

    def heard(seconds: float) -> bool:
        return len(ray.wait(asked, num_returns=workers, timeout=seconds)[0]) == workers

    def state() -> str:
        return (
            f"{len(silent())} of {workers} workers do not answer. The nodes {', '.join(_nodes())} must all reach "
            f"{ray.util.get_node_ip_address()}, where this program runs"
        )

    if not _waited(heard, deadline, lambda: f"{title}: waits for Ray's nodes: {state()}"):
        raise PlatformError(
            f"{title}: not all of Ray's nodes answered within {minutes:g} min (compute.start_minutes): {state()}: start each "
            f"with an address of the network that they share (ray start --node-ip-address=…), and look at firewalls between them"
        )
    try:
        ray.get(asked)
    except RayError as error:
        raise PlatformError(f"{title}: a node of Ray's cannot work for us: {one_line(error, 400)}") from None


@ray.remote(max_retries=-1)  # a node that was lost in between: Ray looks for another place
def _answer(parcel: bytes) -> int:
    return len(parcel)


def _waited(done: Callable[[float], bool], deadline: float, state: Callable[[], str]) -> bool:
    """Whether it was done in time; now and then a line says what is waited for."""
    spoke = time.monotonic()
    while not done(STEP_SECONDS):
        now = time.monotonic()
        if now > deadline:
            return False
        if now - spoke >= QUIET_SECONDS:
            spoke = now
            print(state(), file=sys.stderr, flush=True)
    return True


def _missing(workers: int, kind: str) -> str:
    have, free = ray.cluster_resources().get(kind, 0), ray.available_resources().get(kind, 0)
    return f"{workers} workers need a {kind} each; its {len(_nodes())} nodes have {have:g}, {free:g} of them free"


def _nodes() -> list[str]:
    """The addresses by which Ray's nodes are to find each other."""
    return sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
