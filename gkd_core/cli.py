"""The command line. Each command imports what it needs when it runs, so that `gkd --help` answers at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkd_core.errors import GkdError

if TYPE_CHECKING:
    from gkd_core.settings import Settings

PARAMS = Path("params.yaml")
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""
Distil a vision foundation model into a small segmentation model that holds up where it never saw labels.

A tour, in the order in which one needs it:

1. `gkd settings --profile demo` shows every number of the recipe.

2. `gkd plan --profile demo` lists the stages that these numbers ask for.

3. `gkd run prepare-data` runs one stage here; `dvc repro` runs all that are out of date.

4. `gkd show artifacts/report` prints the matrix that a run left behind.

5. `make demo` does all of it by the Prefect flow, with MLflow; `make compare` sets the methods side by side.

Settings come from params.yaml here, or, with --profile, from a shipped profile; --set a.b=value goes on top.
""",
)

Profile = Annotated[
    str | None, typer.Option("--profile", help="Shipped profile to use instead of params.yaml, such as demo or camvid.")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as distill_proxy.updates=200. Can be repeated.")]


@app.command(epilog="Example: gkd settings --profile camvid --set seed=1 > params.yaml")
def settings(profile: Profile = None, set_: Set = None) -> None:
    """Print the whole settings tree, as it would be used."""
    from gkd_core.settings import dump_settings

    typer.echo(dump_settings(_settings(profile, set_)), nl=False)


@app.command(epilog="Example: gkd profiles")
def profiles() -> None:
    """List the shipped profiles."""
    from gkd_core.settings import PROFILES, profile_names

    for name in profile_names():
        first = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        typer.echo(f"{name:<12}{first.removeprefix('#').strip()}")


@app.command(epilog="Example: gkd plan --profile demo --set method=no-kd")
def plan(profile: Profile = None, set_: Set = None) -> None:
    """List the stages that these settings ask for, with what each reads and writes."""
    from gkd_core import stages

    for run in stages.plan(_settings(profile, set_)):
        inputs = ", ".join(str(path) for path in run.inputs[:4]) + (
            f" and {len(run.inputs) - 4} more" if len(run.inputs) > 4 else ""
        )
        typer.echo(f"{run.command}\n    reads   {inputs or 'settings only'}\n    writes  {run.output}")


@app.command(epilog="Example: gkd run distill-source --source gta5 --profile demo --set compute.workers=0")
def run(
    stage: Annotated[str, typer.Argument(help="Name of the stage; `gkd plan` lists them.")],
    source: Annotated[str | None, typer.Option(help="Source dataset, for stages that have one run a source.")] = None,
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Run one stage here, going on from its last checkpoint where there is one."""
    # Two training processes share the cores: threads that spin while they wait would slow the other one down.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from gkd_core import stages

    tree = _settings(profile, set_)
    stages.run_stage(tree, stages.find_run(tree, stage, source), Path.cwd())


@app.command(epilog="Example: gkd recipe --profile camvid --write")
def recipe(
    profile: Profile = None,
    set_: Set = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write params.yaml and dvc.yaml here instead of printing dvc.yaml.")
    ] = False,
) -> None:
    """Print the recipe, dvc.yaml, for these settings, or write it with its params.yaml for `dvc repro`."""
    from gkd_core.adapters.dvc_recipe import render
    from gkd_core.files import atomic_file
    from gkd_core.settings import dump_settings

    tree = _settings(profile, set_)
    text = render(tree)
    if not write:
        typer.echo(text, nl=False)
        return
    for name, content in (("params.yaml", dump_settings(tree)), ("dvc.yaml", text)):
        with atomic_file(Path(name)) as temporary:
            temporary.write_text(content, encoding="utf-8")
    typer.echo("wrote params.yaml and dvc.yaml; now run: dvc repro")


@app.command(epilog="Example: gkd show artifacts/report")
def show(folder: Annotated[Path, typer.Argument(help="Folder of a report.")] = Path("artifacts/report")) -> None:
    """Print the matrix of a finished run."""
    from gkd_core.evaluate.terminal import print_matrix
    from gkd_core.records import ScoreTable

    print_matrix(ScoreTable.read(folder / "matrix.json"))


@app.command(epilog="Example: gkd demo-teacher --output /tmp/teacher.safetensors")
def demo_teacher(
    output: Annotated[Path, typer.Option(help="File to write the teacher's weights to.")],
    runs: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("artifacts/runs/demo-teacher"),
) -> None:
    """Train the demo's teacher again, from nothing, as the shipped one was trained (about ten minutes)."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from gkd_core.task.demo_teacher import TeacherSettings, train_demo_teacher

    train_demo_teacher(TeacherSettings(), runs, output)


def main() -> None:
    """The command `gkd`."""
    run_command_line(app)


def run_command_line(commands: typer.Typer) -> None:
    """Run a command line: 0 on success, 2 for an error that the user can mend, 130 after Ctrl-C or SIGTERM."""
    # A stage that is told to end must leave its `with` blocks, or half-written files would stay. Both are set, as a process
    # that a script starts in the background inherits a Ctrl-C that is ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        commands()
    except GkdError as error:
        for line in str(error).splitlines():
            print(f"gkd: {line}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except OSError as error:
        print(
            f"gkd: {error.filename or 'input or output'}: {error.strerror or error}; nothing half-written was kept",
            file=sys.stderr,
        )
        sys.exit(EXIT_USER_ERROR)
    except SystemExit as end:
        # Typer has turned Ctrl-C into an exit already.
        if end.code == EXIT_INTERRUPTED:
            print("gkd: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        raise


def _settings(profile: str | None, overrides: list[str] | None) -> Settings:
    from gkd_core.settings import load_settings

    return load_settings(PARAMS, profile, overrides or [])
