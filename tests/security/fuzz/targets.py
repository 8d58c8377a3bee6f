"""Every target by name."""

from __future__ import annotations

from tests.security.fuzz import documents, readers
from tests.security.fuzz.harness import Target

TARGETS: dict[str, Target] = {target.name: target for target in (*readers.TARGETS, *documents.TARGETS)}
