"""The command line. Each command imports what it needs when it runs, so that `gkd --help` answers at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gkd_core.cli import bundle as bundling
from gkd_core.cli import export as exporting
from gkd_core.cli import latency as timing
from gkd_core.cli import new as laying_out
from gkd_core.cli import predict as predicting
from gkd_core.cli.bucket import bucket_app
from gkd_core.cli.compare import compare
from gkd_core.cli.data import data_app
from gkd_core.cli.doctor import doctor_app
from gkd_core.cli.infra import infra_app
from gkd_core.cli.measure import EXAMPLE, measure
from gkd_core.cli.metrics import metrics_app
from gkd_core.cli.options import Profile, Set, one_profile, read_settings
from gkd_core.cli.plan import plan
from gkd_core.cli.registry import registry_app
from gkd_core.cli.run import run_command_line

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""
Distil a vision foundation model into a small segmentation model that generalises to domains without labels.

A tour, in the order in which one needs it:

1. `gkd new my-project` lays out a project, a folder in which all of this works; `gkd settings --profile demo` shows every
number of the recipe.

2. `gkd plan demo` lists the stages that these numbers ask for, with the work of each; `gkd dry-run demo` rehearses them in small;
`gkd data describe FOLDER` prints a catalog entry for images of your own, `gkd data verify` finds what is wrong with them.

3. `gkd run prepare-data` runs one stage here; `dvc repro` runs all that are out of date.

4. `gkd show artifacts/report` prints the matrix that a run left behind; `gkd compare` puts runs side by side.

5. The recipe leaves each student as a bundle: `gkd predict artifacts/bundle/gta5 photographs -o masks` writes label maps of
anybody's images, `gkd latency artifacts/bundle/gta5 --against teacher` says what it takes and saves. `gkd bundle` makes one of
another segmentor, `gkd export` is for other programs, `gkd import-checkpoint` reads the authors' own.

6. `make demo` does all of it by the Prefect flow, with MLflow; `make compare` sets the methods side by side.

Settings come from params.yaml here, or, with --profile, from a shipped profile; --set a.b=value goes on top.
""",
)
app.add_typer(data_app)
app.add_typer(bucket_app)
app.add_typer(doctor_app)
app.command("new", epilog=f"Example: {laying_out.EXAMPLE}")(laying_out.new)
app.command(epilog="Example: gkd compare --last 12 --html comparison.html")(compare)
app.command("measure", epilog=f"Example: {EXAMPLE}")(measure)
app.command("bundle", epilog=f"Example: {bundling.EXAMPLE}")(bundling.bundle)
app.command("export", epilog=f"Example: {exporting.EXAMPLE}")(exporting.export)
app.command("predict", epilog=f"Example: {predicting.EXAMPLE}")(predicting.predict)
app.command("latency", epilog=f"Example: {timing.EXAMPLE}")(timing.latency)
app.add_typer(registry_app)
app.add_typer(infra_app)
app.add_typer(metrics_app)


@app.command(epilog="Example: gkd settings --profile camvid --set seed=1 > params.yaml")
def settings(profile: Profile = None, set_: Set = None) -> None:
    """Print the whole settings tree, as it would be used."""
    from gkd_core.settings import dump_settings

    typer.echo(dump_settings(read_settings(profile, set_)), nl=False)


@app.command(epilog="Example: gkd profiles")
def profiles() -> None:
    """List the shipped profiles."""
    from gkd_core.settings import PROFILES, profile_names

    width = max(map(len, profile_names())) + 2
    for name in profile_names():
        first = (PROFILES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
        typer.echo(f"{name:<{width}}{first.removeprefix('#').strip()}")


app.command(epilog="Example: gkd plan f2l-dinov2-b-deit-s --nodes 8")(plan)


@app.command(epilog="Example: gkd dry-run f2f-dinov2-l-b --depth 2")
def dry_run(
    name: Annotated[str | None, typer.Argument(metavar="[PROFILE]", help="The profile, as with --profile.")] = None,
    profile: Profile = None,
    set_: Set = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Blocks of both transformers, for a rehearsal in seconds; all of them without it.")
    ] = None,
) -> None:
    """Rehearse the recipe: both models as they are, with random weights, for one update a stage on small rendered images."""
    from gkd_core.planning.rehearsal import rehearse, small

    for line in rehearse(small(read_settings(one_profile(name, profile), set_), depth)):
        typer.echo(line)


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

    recipe = stages.Recipe.of(read_settings(profile, set_))
    stages.run_stage(recipe, recipe.find(stage, source), Path.cwd())


@app.command(epilog="Example: gkd recipe --profile camvid --write")
def recipe(
    profile: Profile = None,
    set_: Set = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write params.yaml and dvc.yaml here instead of printing dvc.yaml.")
    ] = False,
) -> None:
    """Print the recipe, dvc.yaml, for these settings, or write it with its params.yaml for `dvc repro`."""
    from gkd_core.files import atomic_file
    from gkd_core.settings import dump_settings
    from gkd_core.versioning.recipe import render

    tree = read_settings(profile, set_)
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
    from gkd_core.records import ScoreTable
    from gkd_core.reports.terminal import print_matrix

    print_matrix(ScoreTable.read(folder / "matrix.json"))


@app.command(epilog="Example: gkd import-checkpoint checkpoint_100.pth --arch deit_small_patch16_224 --output students/deit-s")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="The authors' checkpoint of stage one or two, .pth or .safetensors.")],
    arch: Annotated[str, typer.Option(help="The student's architecture, as timm names it.")],
    benchmark: Annotated[
        str, typer.Option(help="Benchmark that a stage-two checkpoint was trained for: it says source and classes.")
    ] = "G2C",
    output: Annotated[
        Path | None, typer.Option(help="Folder to write, safetensors and manifest.json; without it, nothing is written.")
    ] = None,
) -> None:
    """Read a checkpoint of the authors' and say what was mapped and what was not; with --output, write it as one of ours."""
    from gkd_core.interop.released import import_released

    for line in import_released(file, arch, benchmark, output):
        typer.echo(line)


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
