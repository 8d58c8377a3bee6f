"""A student becomes champion in a transaction: if a later step fails, the old champion is restored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.transactions import Transaction, transaction

from gkd_core.errors import PlatformError
from gkd_core.registry.champions import Champions, Move
from gkd_core.registry.gate import Verdict
from gkd_core.registry.model_card import render_card
from gkd_core.storage.mlflow_store import CHAMPION

BY_FLOW = "flow run "


def promote(
    champions: Champions, name: str, number: str, by: str, verdict: Verdict, scratch: Path, public_key: Path | None = None
) -> Move:
    """Make a version champion, check that it serves, and write it down; or leave everything as it was.

    Args:
        by: the flow run.
        scratch: folder for the model while it is checked.
        public_key: of whom it must be signed by, where that is asked for.

    Raises:
        PlatformError: the old champion could not be given back; the message says where the alias points.
    """
    before = champions.registry.aliases(name).get(CHAMPION)
    try:
        with transaction() as promotion:
            move = champions.begin(name, number, by, verdict.reasons[0])
            promotion.stage(move, on_rollback_hooks=[_giving_back(champions, name, move)])
            _check(champions, name, scratch, public_key)
            _publish(champions, name, number, verdict)
            champions.finish(name, move)
    except BaseException as error:
        # Prefect logs a hook that fails and goes on: only a look at the alias tells whether it did its work.
        after = champions.registry.aliases(name).get(CHAMPION)
        if after != before:
            raise PlatformError(
                f"{name}: promotion failed ({error}), and @{CHAMPION} still points at version {after} instead of {before}; "
                f"give it back: gkd registry rollback {name}"
            ) from error
        raise
    return move


def _giving_back(champions: Champions, name: str, move: Move) -> Callable[[Transaction], None]:
    def give_back_the_old_champion(promotion: Transaction) -> None:
        champions.undo(name, move, "a step after the promotion failed; see the flow run")
        get_run_logger().warning("%s: @champion is version %s again: a step after the promotion failed", name, move.before)

    return give_back_the_old_champion


def _check(champions: Champions, name: str, scratch: Path, public_key: Path | None) -> None:
    from gkd_core.registry.serving_check import check_served  # loads torch

    images = check_served(champions.registry, name, CHAMPION, scratch, public_key)
    get_run_logger().info("%s: loaded from the registry, its program gives the logits of its weights on %d images", name, images)


def _publish(champions: Champions, name: str, number: str, verdict: Verdict) -> None:
    version = champions.registry.client.get_model_version(name, number)
    card = render_card(champions.registry.facts(version), verdict)
    create_markdown_artifact(card, key=artifact_key("champion", name), description=f"{name}: the model card of its champion")


def artifact_key(kind: str, name: str) -> str:
    """A key as Prefect allows it: lower-case letters, digits and dashes."""
    return f"{kind}-{''.join(letter if letter.isalnum() else '-' for letter in name.lower())}"


def verdict_table(verdict: Verdict) -> str:
    """The verdict as Markdown."""

    def number(value: Any) -> str:
        return "–" if value is None else f"{value:.2f}"

    lines = [f"- {reason}" for reason in verdict.reasons]
    lines += ["", "| benchmark | domain | champion | challenger | change | |", "|---|---|---|---|---|---|"]
    for line in verdict.domains:
        cells = [line.benchmark, line.domain, number(line.champion), number(line.challenger), number(line.change), line.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def undo_unfinished(champions: Champions, name: str) -> None:
    """Restore the old champion where a dead flow run left a promotion open.

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
    champions.undo(name, left, "the flow run that began it ended before it finished")
    get_run_logger().warning("%s: took back the promotion of version %s, which a dead flow run left open", name, left.after)


def _is_at_work(flow_run: str) -> bool:
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
    except ObjectNotFound:
        return False  # of another Prefect server, or deleted with its history
    return state is not None and not state.is_final()
