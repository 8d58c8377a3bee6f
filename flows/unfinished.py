"""A promotion whose process died between moving the alias and the end is taken back."""

from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from gkd_core.errors import PlatformError
from gkd_core.registry.champions import Champions

BY_FLOW = "flow run "


def undo_unfinished(champions: Champions, name: str) -> None:
    """Give the old champion back where a dead flow run left a promotion open.

    Raises:
        PlatformError: the process that began it is still at work, or was no flow run.
    """
    if not champions.registry.is_registered(name):
        return
    left = champions.open_promotion(name)
    if left is None:
        return
    if not left.by.startswith(BY_FLOW) or _is_at_work(left.by.removeprefix(BY_FLOW)):
        raise PlatformError(
            f"{name}: {left.by} began to promote version {left.after} at {left.at} and has not ended; wait for it, "
            f"or, where it is dead: gkd registry rollback {name}"
        )
    champions.undo(name, left, "the flow run that began it ended in its midst")
    get_run_logger().warning("%s: took back the promotion of version %s, which a dead flow run left open", name, left.after)


def _is_at_work(flow_run: str) -> bool:
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
    except ObjectNotFound:
        return False  # of another Prefect server, or deleted with its history
    return state is not None and not state.is_final()
