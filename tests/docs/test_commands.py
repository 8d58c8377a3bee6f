"""Every command in README, docs and the examples of --help is one that the program takes, on data that the catalog has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from gkd_core.cli.app import app
from gkd_core.data.catalog.load import load_catalog
from gkd_core.settings import profile_names
from gkd_core.stages.facts import STAGES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "gkd_core/project/README.md"]
# In the place of what the reader has to fill in; a line that names one is an outline, not a command.
OUTLINES = re.compile(r"\bTUNED BATCHES\b|\bPLACE\b|…")
PROGRAM = typer.main.get_command(app)


def commands() -> Iterator[tuple[str, str]]:
    """Where each stands, and the command."""
    for page in PAGES:
        fenced = False
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        for line in text.splitlines():
            fenced = fenced != line.lstrip().startswith("```")
            if (fenced or line.startswith("    ")) and re.match(r"\s*gkd [a-z]", line):
                yield page.relative_to(ROOT).as_posix(), line.strip()
    for path, command in _leaves(PROGRAM, ()):
        for example in re.findall(r"Example: (gkd .+)", command.epilog or ""):
            yield f"gkd {' '.join(path)} --help", example


def _leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _leaves(inner, (*path, name))
    else:
        yield path, command


COMMANDS = sorted({command: place for place, command in commands() if not OUTLINES.search(command)}.items())


def words_of(command: str) -> list[str]:
    """The words of the first command in a line, without its comment and what a shell does with the output."""
    words = shlex.split(command, comments=True)
    ends = [words.index(end) for end in ("&&", ">", "|") if end in words]
    return words[1 : min(ends, default=len(words))]


def parsed(command: str) -> click.Context:
    """The innermost command's context: its options are read, and nothing is run."""
    words, node = words_of(command), PROGRAM
    context = click.Context(PROGRAM, info_name="gkd")
    while isinstance(node, click.Group):
        name = words.pop(0)
        found = node.get_command(context, name)
        assert found is not None, f"no command '{name}'"
        node = found
    return node.make_context(node.name, words, parent=context)


def test_there_are_commands_to_look_at() -> None:
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS])
def test_a_command_that_is_shown_is_taken(command: str) -> None:
    parsed(command)


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS])
def test_what_a_command_names_is_there(command: str) -> None:
    """Profiles, domains, benchmarks, sources and stages; catalogs of the reader's own are not looked into."""
    context = parsed(command)
    given = {name: value for name, value in context.params.items() if value}
    profile = given.get("profile") or (given.get("name") if context.info_name in ("plan", "dry-run") else None)
    assert profile is None or profile in profile_names()
    catalog = load_catalog(["camvid"])
    domains = list(given.get("domains") or ()) + ([given["benchmark"]] if "benchmark" in given else [])
    for name in domains:
        catalog.domain(name) if "/" in name else catalog.benchmark(name)
    if "source" in given:
        assert given["source"] in {benchmark.source.name for benchmark in catalog.benchmarks.values()}
    if "stage" in given:
        assert given["stage"] in STAGES
