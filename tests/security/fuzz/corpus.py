"""The committed inputs: `valid-*` must be accepted; `fault-*` were faults once, or were made to be."""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
VALID, FAULT = "valid-", "fault-"


def inputs(target: str, prefix: str = "") -> dict[str, bytes]:
    """The committed inputs of a target by name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / target).glob(f"{prefix}*"))}
