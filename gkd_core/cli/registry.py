"""The commands `gkd registry …`: which version is champion, why, and how to change that by hand."""

from __future__ import annotations

import getpass
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkd_core.cli.options import Profile, Set, read_settings
from gkd_core.paths import PARAMS

if TYPE_CHECKING:
    from gkd_core.registry.champions import Champions
    from gkd_core.registry.gate import Verdict
    from gkd_core.settings import Settings
    from gkd_core.tracking.flow_runs import Tracking

registry_app = typer.Typer(
    name="registry",
    no_args_is_help=True,
    help="The registry of students in MLflow: champion, challenger, the gate between them, and rollback. See docs/registry.md.",
)
Name = Annotated[str, typer.Argument(help="Registered model, such as gkd-student-gta5.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is written down.")]
WIDTH = 140


@registry_app.command("list", epilog="Example: gkd registry list")
def list_command(profile: Profile = None, set_: Set = None) -> None:
    """List every student: version, aliases, scores, what the gate said, age."""
    from rich.table import Table

    champions, settings, tracking = _open(profile, set_)
    registry = champions.registry
    table = Table(box=None, pad_edge=False)
    for column in ("model", "version", "aliases", "method", "seed", "targets", "source", "gate", "age"):
        table.add_column(column, justify="right" if column in ("version", "seed", "targets", "source", "age") else "left")
    for name in registry.names(settings.registry.name):
        aliases = registry.aliases(name)
        for version in registry.versions(name):
            own = " ".join(f"@{alias}" for alias, number in aliases.items() if number == str(version.version))
            tags = version.tags
            shown = [tags.get(key, "–") for key in ("method", "seed", "miou.targets", "miou.validation", "gate.decision")]
            table.add_row(name, str(version.version), own, *shown, _age(version.creation_timestamp))
    _print(table if table.row_count else f"no student {settings.registry.name}-… is registered in {tracking.address}")


@registry_app.command(epilog="Example: gkd registry card gkd-student-gta5@champion")
def card(
    model: Annotated[str, typer.Argument(help="NAME@alias or NAME/version; NAME alone is its champion.")],
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Print the model card of a student."""
    champions, _, _ = _open(profile, set_)
    name, number = _name_and_version(model)
    registry = champions.registry
    typer.echo(registry.read_card(registry.version(name, number)), nl=False)


@registry_app.command(epilog="Example: gkd registry fetch gkd-student-gta5@champion -o served")
def fetch(
    model: Annotated[str, typer.Argument(help="NAME@alias or NAME/version; NAME alone is its champion.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; new or empty.")],
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Fetch the files of a student, each held against its digest, and its signature where registry.public_key asks for one."""
    from gkd_core.registry.serving_check import fetch_checked
    from gkd_core.untrusted import given_path

    champions, settings, _ = _open(profile, set_)
    version = fetch_checked(champions.registry, *_name_and_version(model), given_path(output), settings.registry.public_key)
    typer.echo(f"wrote {output}: {version.name} version {version.version}, every file as it was logged")
    typer.echo(f"serve it: mlflow models serve -m {shlex.quote(str(output))} --env-manager local --host 127.0.0.1 --port 5001")


@registry_app.command(epilog="Example: gkd registry gate gkd-student-gta5")
def gate(
    name: Name,
    version: Annotated[str, typer.Option(help="Version or alias to ask about.")] = "challenger",
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Show what the gate says of the challenger against the champion; nothing is moved."""
    from gkd_core.registry.challenge import ask_gate

    champions, settings, _ = _open(profile, set_)
    verdict = ask_gate(champions, name, version, settings.registry)
    if verdict is None:
        typer.echo(f"{name}: version {version} is the champion")
        return
    _show_verdict(verdict)


@registry_app.command(epilog='Example: gkd registry promote gkd-student-gta5 3 --reason "fog matters more to us"')
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="Version number, or challenger.")],
    reason: Reason,
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Make a version champion by hand, whatever the gate says, once it was checked that it loads and gives its own logits."""
    from gkd_core.registry.serving_check import check_served

    champions, settings, _ = _open(profile, set_)
    number = str(champions.registry.version(name, version).version)
    check_served(champions.registry, name, number, _scratch(), settings.registry.public_key)
    move = champions.promote(name, number, _user(), reason)
    typer.echo(f"{name}: @champion is version {move.after} now (was {move.before or 'none'})")


@registry_app.command(epilog="Example: gkd registry rollback gkd-student-gta5")
def rollback(name: Name, reason: Reason = "by hand", profile: Profile = None, set_: Set = None) -> None:
    """Give the champion before this one back; again, the one before that."""
    champions, _, _ = _open(profile, set_)
    move = champions.rollback(name, _user(), reason)
    typer.echo(f"{name}: @champion is version {move.after or 'none'} again (was {move.before})")


@registry_app.command(epilog="Example: gkd registry register 1f0c9a…")
def register(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="MLflow run of a finished pipeline.")],
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Register the students of a finished run; each becomes the challenger of its source, and the gate is asked."""
    from gkd_core.registry.challenge import judge
    from gkd_core.registry.registration import finished_run, register_students, workspace_of

    champions, settings, tracking = _open(profile, set_)
    run = finished_run(tracking, workspace_of(tracking, Path.cwd().resolve(), run_id), run_id)
    for versions in register_students(champions.registry, tracking, [run]).values():
        name, number = versions[0].name, str(versions[0].version)
        verdict = judge(champions, name, number, settings.registry)
        if verdict is None:
            typer.echo(f"{name}: version {number} is the champion already")
            continue
        typer.echo(f"{name}: version {number} is @challenger")
        _show_verdict(verdict)
        if verdict.promote:
            typer.echo(f'Promote it: {shlex.join(["gkd", "registry", "promote", name, number])} --reason "…"')


@registry_app.command(epilog="Example: gkd registry history gkd-student-gta5")
def history(name: Name, profile: Profile = None, set_: Set = None) -> None:
    """Show every move of the alias champion: when, by whom, why."""
    from rich.table import Table

    champions, _, _ = _open(profile, set_)
    table = Table(box=None, pad_edge=False)
    for column in ("at", "move", "from", "to", "by", "why"):
        table.add_column(column)
    for move in champions.history(name):
        table.add_row(move.at[:19].replace("T", " "), move.kind, move.before or "none", move.after or "none", move.by, move.why)
    _print(table)


def _open(profile: str | None, overrides: list[str] | None) -> tuple[Champions, Settings, Tracking]:
    from gkd_core.registry.champions import Champions
    from gkd_core.registry.versions import Registry
    from gkd_core.settings import load_settings
    from gkd_core.tracking.flow_runs import Tracking

    # A registry is looked at from anywhere: without a params.yaml here, by the defaults.
    bare = profile is None and not PARAMS.is_file()
    settings = load_settings(None, None, overrides or []) if bare else read_settings(profile, overrides)
    tracking = Tracking(settings, Path.cwd())
    return Champions(Registry(tracking.client, tracking.address)), settings, tracking


def _name_and_version(model: str) -> tuple[str, str]:
    for mark in ("@", "/"):
        name, found, version = model.partition(mark)
        if found:
            return name, version
    return model, "champion"


def _show_verdict(verdict: Verdict) -> None:
    from rich.table import Table

    typer.echo(f"{verdict.challenger} against {verdict.champion or 'no champion'}: {verdict.decision}")
    for reason in verdict.reasons:
        typer.echo(f"- {reason}")
    table = Table(box=None, pad_edge=False)
    for column in ("benchmark", "domain", "champion", "challenger", "change", ""):
        table.add_column(column, justify="right" if column in ("champion", "challenger", "change") else "left")
    for line in verdict.domains:
        numbers = (_number(line.champion), _number(line.challenger), _number(line.change))
        table.add_row(line.benchmark, line.domain, *numbers, line.verdict)
    _print(table)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _age(milliseconds: int) -> str:
    days = (datetime.now(UTC) - datetime.fromtimestamp(milliseconds / 1000, UTC)).total_seconds() / 86_400
    return f"{days:.1f} d"


def _user() -> str:
    return f"user {getpass.getuser()}"


def _scratch() -> Path:
    from gkd_core.paths import RUNS

    return Path.cwd().resolve() / RUNS / "registry"


def _print(what: object) -> None:
    import sys

    from rich.console import Console

    # A file or a pipe has no width of its own, and wrapped cells would be hard to read there.
    (Console(markup=False) if sys.stdout.isatty() else Console(width=WIDTH, markup=False)).print(what)
