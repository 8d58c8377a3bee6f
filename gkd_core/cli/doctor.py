"""`gkd doctor`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkd_core.cli.options import Profile, Set, read_settings

if TYPE_CHECKING:
    from gkd_core.operations.doctor import Finding

EXIT_ERROR = 1
PLAIN_WIDTH = 200
doctor_app = typer.Typer()


@doctor_app.command(epilog="Example: gkd doctor --profile camvid --json")
def doctor(
    profile: Profile = None,
    set_: Set = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, for programs.")] = False,
) -> None:
    """Look at versions, ports, services, credentials, disk, memory and GPUs, and say what to do about each finding."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from gkd_core.operations.doctor import CHECKS, examine, this_machine

    findings = examine(this_machine(Path.cwd(), read_settings(profile, set_)), CHECKS)
    if json_:
        typer.echo(json.dumps([finding.model_dump() for finding in findings], indent=2, ensure_ascii=True))
    else:
        _print(findings)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(EXIT_ERROR)


def _print(findings: list[Finding]) -> None:
    from collections import Counter

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("what", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found")
    table.add_column("what to do")
    colours = {"ok": "green", "warning": "yellow", "error": "bold red"}
    for finding in findings:
        level = Text(finding.level, style=colours[finding.level])
        table.add_row(Text(finding.subject), level, Text(finding.found), Text(finding.advice))
    console.print(table)
    counts = Counter(finding.level for finding in findings)
    console.print(f"\n{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors")
