"""Which version is champion: every move of the alias is recorded on the registered model and can be undone.

MLflow moves an alias without looking whose it was, so two promotions at the same moment cannot be told apart by it. A promotion
is therefore announced before the alias moves (tag `promotion.open`), read again after, and refused where another is announced.
What that does not close: two that announce themselves within the same few milliseconds on different machines; the later one wins
the tag, and the other finds the alias not its own and gives up. The deployment's limit of one run is what keeps them apart.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal

from mlflow.exceptions import MlflowException

from gkd_core.errors import PlatformError
from gkd_core.records import Record
from gkd_core.registry.versions import Registry
from gkd_core.storage.mlflow_store import CHALLENGER, CHAMPION

OPEN_TAG = "promotion.open"
MOVE_TAG = re.compile(r"move\.(\d+)")
WHY_LIMIT = 2000  # characters; a tag of a registered model has room for 5000
MoveKind = Literal["promote", "rollback", "undo"]


class Move(Record):
    """One move of the alias `champion`.

    Attributes:
        before, after: versions; null for none.
        by: flow run or user.
        at: time in UTC, ISO 8601.
    """

    kind: MoveKind
    before: str | None
    after: str | None
    by: str
    at: str
    why: str


class Champions:
    """The alias `champion` of the registered models of one store."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def history(self, name: str) -> list[Move]:
        """Every move, the oldest first."""
        tags = self._tags(name)
        numbered = sorted((int(found[1]), value) for key, value in tags.items() if (found := MOVE_TAG.fullmatch(key)))
        return [Move.model_validate_json(value) for _, value in numbered]

    def open_promotion(self, name: str) -> Move | None:
        """The promotion that was begun and neither finished nor undone; its process works on it, or is dead."""
        announced = self._tags(name).get(OPEN_TAG)
        return None if announced is None else Move.model_validate_json(announced)

    def begin(self, name: str, number: str, by: str, why: str) -> Move:
        """Announce a promotion and make the version champion; `finish` or `undo` it.

        Raises:
            PlatformError: the version does not exist, another promotion is open, or the alias was moved by another meanwhile.
        """
        self.registry.version(name, number)
        other = self.open_promotion(name)
        if other is not None:
            raise PlatformError(
                f"{name}: {other.by} began to promote version {other.after} at {other.at} and has not ended; "
                f"where that process is dead: gkd registry rollback {name}"
            )
        move = _move("promote", self._champion(name), number, by, why)
        self.registry.client.set_registered_model_tag(name, OPEN_TAG, move.model_dump_json())
        self._point(name, number)
        announced = self.open_promotion(name)
        if announced != move or self._champion(name) != number:
            if announced == move:
                self.registry.client.delete_registered_model_tag(name, OPEN_TAG)
            raise PlatformError(f"{name}: another promotion moved @{CHAMPION} at the same moment; look at gkd registry list")
        return move

    def finish(self, name: str, move: Move) -> None:
        """Record a promotion as finished."""
        number = str(move.after)
        self.registry.tag(
            name,
            number,
            {
                "promoted_at": move.at,
                "promoted_by": move.by,
                "previous_champion": move.before or "none",
                "promoted_why": move.why,
            },
        )
        if self.registry.aliases(name).get(CHALLENGER) == number:
            self.registry.client.delete_registered_model_alias(name, CHALLENGER)
        self._record(name, move)
        self.registry.client.delete_registered_model_tag(name, OPEN_TAG)

    def undo(self, name: str, move: Move, why: str) -> None:
        """Undo an open promotion: the alias points where it did before, and that is recorded."""
        if self._champion(name) == move.after:
            self._point(name, move.before)
        # One that is on record already is taken off again; one that is not never was.
        kind: MoveKind = "rollback" if move in self.history(name) else "undo"
        self._record(name, _move(kind, move.after, move.before, move.by, why))
        if self.open_promotion(name) == move:
            self.registry.client.delete_registered_model_tag(name, OPEN_TAG)

    def promote(self, name: str, number: str, by: str, why: str) -> Move:
        """Make a version champion by hand; raises as `begin`."""
        move = self.begin(name, number, by, why)
        self.finish(name, move)
        return move

    def rollback(self, name: str, by: str, why: str) -> Move:
        """Point the alias at the champion before this one; called again, at the one before that. No other alias moves.

        A promotion that was left open by a dead process is undone.

        Raises:
            PlatformError: there is none before this one, or its version was deleted.
        """
        left = self.open_promotion(name)
        if left is not None:
            self.undo(name, left, why)
            return self.history(name)[-1]
        standing = _standing(self.history(name))
        if len(standing) < 2:
            raise PlatformError(
                f"{name}: no champion before this one is on record; name one: gkd registry promote {name} VERSION"
            )
        before, after = standing[-1], standing[-2]
        current = self._champion(name)
        if current != before:
            raise PlatformError(
                f"{name}: @{CHAMPION} is version {current}, but on record it is {before}: it was moved by other means; "
                f"name the one you want: gkd registry promote {name} VERSION --reason …"
            )
        self.registry.version(name, after)
        move = _move("rollback", before, after, by, why)
        self._point(name, after)
        self._record(name, move)
        self.registry.tag(name, before, {"rolled_back_at": move.at, "rolled_back_by": by, "rolled_back_why": move.why})
        return move

    def challenge(self, name: str, number: str) -> None:
        """Point the alias `challenger` at a version."""
        self.registry.client.set_registered_model_alias(name, CHALLENGER, number)

    def _champion(self, name: str) -> str | None:
        return self.registry.aliases(name).get(CHAMPION)

    def _point(self, name: str, number: str | None) -> None:
        if number is None:
            self.registry.client.delete_registered_model_alias(name, CHAMPION)
        else:
            self.registry.client.set_registered_model_alias(name, CHAMPION, number)

    def _record(self, name: str, move: Move) -> None:
        taken = [int(found[1]) for key in self._tags(name) if (found := MOVE_TAG.fullmatch(key))]
        number = max(taken, default=0) + 1
        self.registry.client.set_registered_model_tag(name, f"move.{number:04d}", move.model_dump_json())

    def _tags(self, name: str) -> dict[str, str]:
        try:
            return dict(self.registry.client.get_registered_model(name).tags)
        except MlflowException:
            raise PlatformError(f"{name}: no such registered model in {self.registry.address}; see gkd registry list") from None


def _move(kind: MoveKind, before: str | None, after: str | None, by: str, why: str) -> Move:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Move(kind=kind, before=before, after=after, by=by, at=now, why=why[:WHY_LIMIT])


def _standing(moves: list[Move]) -> list[str]:
    """Champions, the present one last: a rollback takes one off, a promotion that was undone never was."""
    stack: list[str] = []
    for move in moves:
        if move.kind == "promote" and move.after is not None:
            stack.append(move.after)
        elif move.kind == "rollback":
            stack.pop()
    return stack
