"""Facts of challengers and champions in the registry, and the gate applied to them."""

from __future__ import annotations

from datetime import UTC, datetime

from mlflow.entities.model_registry import ModelVersion

from gkd_core.registry.champions import Champions
from gkd_core.registry.gate import Standing, Verdict, decide
from gkd_core.registry.retraining import Champion, Trial
from gkd_core.registry.versions import JUDGED_TAG, RECIPE_TAG, VERDICT_TAG, Registry
from gkd_core.settings import RegistrySettings
from gkd_core.storage.mlflow_store import CHAMPION

TURNED_DOWN = ("refused", "not comparable")


def ask_gate(champions: Champions, name: str, number: str, settings: RegistrySettings) -> Verdict | None:
    """The verdict on a version against the present champion. Nothing is moved or written.

    Returns:
        None where the version is the champion itself.

    Raises:
        PlatformError: there is no such version, or nothing is known of one of the two.
    """
    registry = champions.registry
    version = registry.version(name, number)
    present = registry.aliases(name).get(CHAMPION)
    if present == str(version.version):
        return None
    champion = None if present is None else _standing(registry, registry.version(name, present))
    return decide(_standing(registry, version), champion, settings.margin, settings.max_drop)


def judge(champions: Champions, name: str, number: str, settings: RegistrySettings) -> Verdict | None:
    """As `ask_gate`, for a version that thereby becomes challenger; the verdict is written into its card and tags."""
    verdict = ask_gate(champions, name, number, settings)
    if verdict is None:
        return None
    champions.challenge(name, number)
    champions.registry.note_verdict(name, number, verdict)
    return verdict


def champion_of(champions: Champions, name: str) -> Champion | None:
    """The champion of a registered model; None where it has none.

    Raises:
        PlatformError: nothing is known of it.
    """
    registry = champions.registry
    number = registry.aliases(name).get(CHAMPION)
    if number is None:
        return None
    version = registry.version(name, number)
    moves = [move for move in champions.history(name) if move.after == number]
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return Champion(number, registry.fingerprint(version), datetime.fromisoformat(moves[-1].at) if moves else created)


def trials_of(registry: Registry, name: str) -> list[Trial]:
    """Every version, with what the gate said of it."""
    return [_trial(version) for version in registry.versions(name)]


def _trial(version: ModelVersion) -> Trial:
    tags = version.tags
    at = tags.get(JUDGED_TAG)
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return Trial(
        version=str(version.version),
        fingerprint=tags.get(RECIPE_TAG, ""),
        seed=int(tags.get("seed", -1)),
        refused=tags.get(VERDICT_TAG) in TURNED_DOWN,
        at=created if at is None else datetime.fromisoformat(at),
    )


def _standing(registry: Registry, version: ModelVersion) -> Standing:
    return registry.facts(version).standing.model_copy(update={"name": f"{version.name} version {version.version}"})
