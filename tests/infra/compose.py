"""The compose file as an engine reads it: with its variables filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

from tests.infra.kubernetes import REPOSITORY, Tree

FOLDER = REPOSITORY / "infra" / "compose"
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}")


def example() -> dict[str, str]:
    """The variables that the example of `.env` sets."""
    lines = (FOLDER / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def offered() -> dict[str, str]:
    """Those that it names with their defaults, for whoever wants others."""
    lines = (FOLDER / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#[A-Z_]+=", line))


def read_compose(variables: Mapping[str, str] | None = None) -> Tree:
    """The whole file.

    Args:
        variables: what `.env` has; None takes the example.
    """
    given = example() if variables is None else variables

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return given.get(match["name"]) or match["default"] or given[match["name"]]

    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    found: Tree = yaml.safe_load(VARIABLE.sub(value, text))
    return found
