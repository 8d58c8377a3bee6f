"""Queue many flow runs of a recipe with nothing to do, and judge: none lost, none run twice, never more at once than allowed.

    python -m benchmarks.load --runs 200 --limit 4

The platform is that of `make up`, in a project and on ports of its own. Exit status 1 where anything is wrong.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gkd_core.errors import PlatformError
from gkd_core.operations.postgres import VARIABLE, Database, database_named

from .databases import Databases, PostgresDatabases, SqliteFiles
from .figures import Figures
from .measure import Outcome, measure

MIB = 1024**2
console = Console(highlight=False)


class Kind(Enum):
    """Where the records are kept."""

    SQLITE = "sqlite"
    NAMED = "named"
    POSTGRESQL = "postgresql"


def main(
    runs: Annotated[int, typer.Option(min=1, help="Flow runs to queue.")] = 200,
    limit: Annotated[int, typer.Option(min=1, help="How many of them may run at once.")] = 4,
    database: Annotated[
        Kind,
        typer.Option(help="SQLite; the PostgreSQL server that GKD_DATABASE_URL names; or one of its own, if installed here."),
    ] = Kind.POSTGRESQL,
    folder: Annotated[Path | None, typer.Option(help="Empty folder for all of it, logs too, to be kept.")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="File for all figures.")] = None,
) -> None:
    """Measure, judge, and print both."""
    with _project(folder) as project, _databases(database, project) as databases:
        outcome = measure(project, runs, limit, databases, _say)
    if output is not None:
        output.write_text(json.dumps(dataclasses.asdict(outcome), indent=1) + "\n", encoding="utf-8")
    show(outcome, databases.name)
    raise typer.Exit(1 if outcome.findings else 0)


@contextmanager
def _project(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="gkd-load-") as temporary:
            yield Path(temporary)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()


@contextmanager
def _databases(kind: Kind, project: Path) -> Iterator[Databases]:
    if kind is Kind.SQLITE:
        yield SqliteFiles(project)
    elif kind is Kind.NAMED:
        named = database_named()
        if named is None:
            raise PlatformError(f"{VARIABLE} names no server; set it, or leave --database named out")
        yield PostgresDatabases(named)
    else:
        with own_postgres() as databases:
            yield databases


@contextmanager
def own_postgres() -> Iterator[PostgresDatabases]:
    """A PostgreSQL server on loopback while the block lasts, the one that the tests start.

    Raises:
        PlatformError: none is installed here.
    """
    from tests.integration.hosts import Host
    from tests.integration.postgres import postgres_server, server_programs

    programs = server_programs()
    if programs is None:
        raise PlatformError("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    with postgres_server(programs, Host()) as server:
        named = database_named({VARIABLE: server.address_with_password})
        assert isinstance(named, Database)
        yield PostgresDatabases(named)


def show(outcome: Outcome, database: str) -> None:
    """Print what was found and measured."""
    for finding in outcome.findings:
        console.print(finding, style="red", soft_wrap=True)
    if outcome.figures is None:
        return
    table = Table(title=f"{outcome.figures.runs} flow runs, {database}", title_justify="left", show_header=False)
    for name, value in [*_speed(outcome.figures), *_cost(outcome, outcome.figures.runs)]:
        table.add_row(name, value)
    console.print(table)
    console.print("all well" if not outcome.findings else f"{len(outcome.findings)} findings")


def _speed(figures: Figures) -> list[tuple[str, str]]:
    return [
        ("flow runs a minute", f"{figures.per_minute:.1f}"),
        ("all of them", f"{figures.seconds:.0f} s"),
        ("queued to completed, median", f"{figures.latency_median:.0f} s"),
        ("queued to completed, 95 %", f"{figures.latency_p95:.0f} s"),
        ("longest wait", f"{figures.longest_wait:.0f} s"),
        ("slot to running, median", f"{figures.starting:.1f} s"),
        ("running to completed, median", f"{figures.working:.1f} s"),
        ("at once, at most", str(figures.most_at_once)),
        ("slots in use", f"{figures.slots_used:.0%}"),
        ("turned away, a run", f"{figures.turned_away:.1f}"),
    ]


def _cost(outcome: Outcome, runs: int) -> Iterator[tuple[str, str]]:
    for name, spent in outcome.use.cpu_seconds.items():
        yield f"CPU of {name}, a run", f"{spent / runs:.2f} s"
    for name, held in outcome.use.memory.items():
        yield f"memory of {name}", f"{held.first / MIB:.0f} → {held.last / MIB:.0f}, at most {held.peak / MIB:.0f} MiB"
    for name, (before, after) in outcome.database_bytes.items():
        yield f"database of {name}", f"{before / MIB:.1f} → {after / MIB:.1f} MiB"
    for name, grown in outcome.disk_bytes.items():
        yield f"disk, {name}, a run", f"{grown / 1024:.0f} KiB"
    yield "'database is locked' in the logs", str(outcome.locked)


def _say(text: str) -> None:
    console.print(text, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
