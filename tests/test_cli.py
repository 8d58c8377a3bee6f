"""The command line, as a user meets it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.cli.run import run_command_line
from gkd_core.errors import GkdError, PlatformError, TrainingError, TransientError
from gkd_core.records import Score, ScoreProtocol, ScoreTable
from gkd_core.reports.report import write_report

COMMANDS = sorted(
    str(command.name or command.callback.__name__.replace("_", "-")) for command in app.registered_commands if command.callback
)


def gkd(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from gkd_core.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--profile", "demo", "--set", "seed=x"], "gkd: seed: given 'x'; input should be a valid integer"),
        (["settings"], "gkd: params.yaml: no such file; give --profile"),
        (
            ["run", "distil-proxy", "--profile", "demo"],
            "gkd: distil-proxy: no such stage for method gkd; there is: prepare-data, ",
        ),
        (["run", "distill-source", "--profile", "demo"], "gkd: distill-source: no such stage"),
        (["plan", "--profile", "demo", "--set", "data.benchmarks=[G2X]"], "gkd: benchmark 'G2X' is unknown; there is: "),
        (["show", "nowhere"], "gkd: nowhere/matrix.json: no such file; run the stage that writes it first"),
        (["run", "learn-task", "--source", "gta5", "--profile", "demo"], "gkd: "),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = gkd(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    code = "import gkd_core.settings as s, os, signal\n"
    code += f"s.load_settings = lambda *a: os.kill(os.getpid(), {int(signal.SIGINT)})\n"
    code += "from gkd_core.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "settings"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 130
    assert result.stderr.strip() == "gkd: interrupted; the same command goes on from the last checkpoint"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_that_names_it(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: gkd {command}" in " ".join(result.output.split())


def test_help_is_a_tour_of_the_commands(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for command in (*COMMANDS, "make demo", "make compare", "dvc repro"):
        assert command in result.output


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom gkd_core.cli import main\ntry:\n    main()\nfinally:\n    print(sorted(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "'typer'" in result.stderr
    for heavy in ("torch", "timm", "numpy", "pydantic", "ray", "mlflow", "dvc", "prefect", "transformers"):
        assert f"'{heavy}'" not in result.stderr


def test_settings_prints_yaml_that_it_reads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    first = runner.invoke(app, ["settings", "--profile", "demo", "--set", "seed=5"])
    assert yaml.safe_load(first.output)["seed"] == 5
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(first.output)
    assert runner.invoke(app, ["settings"]).output == first.output


def test_profiles_are_listed_with_what_they_are() -> None:
    lines = CliRunner().invoke(app, ["profiles"]).output.splitlines()
    assert any(line.split()[0] == "demo" and len(line.split()) > 4 for line in lines)


def test_plan_lists_commands_inputs_and_outputs() -> None:
    output = CliRunner().invoke(app, ["plan", "--profile", "demo", "--set", "data.benchmarks=[P2R]"]).output
    assert [line for line in output.splitlines() if line.startswith("gkd run")] == [
        "gkd run prepare-data",
        "gkd run distill-proxy",
        "gkd run distill-source --source potsdam-rgb",
        "gkd run learn-task --source potsdam-rgb",
        "gkd run evaluate --source potsdam-rgb",
        "gkd run bundle --source potsdam-rgb",
        "gkd run illustrate --source potsdam-rgb",
        "gkd run report",
    ]
    assert "writes  artifacts/report" in output


@pytest.mark.parametrize("named", [["demo"], ["--profile", "demo"], ["demo", "--profile", "demo"]])
def test_plan_estimates_the_work_of_a_profile(named: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["plan", *named, "--set", "data.benchmarks=[P2R]", "--mfu", "0.5", "--peak-tflops", "100"]
    output = CliRunner().invoke(app, arguments).output
    assert "gkd run distill-source --source potsdam-rgb" in output
    assert "hours on one GPU of 100 TFLOP/s at 50% MFU" in output
    rows = {cells[1].strip(): cells for line in output.splitlines() if len(cells := line.split("│")) > 5}
    assert "2,400 × 8" in rows["distill-proxy"][3]
    assert "1,280" in rows["distill-proxy"][2]
    assert "?" in rows["evaluate-potsdam-rgb"][3]  # the world is not rendered yet: its tiles' size is unknown
    assert "Parameters: teacher 1.0 M, student" in output


def test_two_profiles_are_one_too_many(tmp_path: Path) -> None:
    result = gkd("plan", "demo", "--profile", "camvid", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "gkd: --profile camvid: demo is named beside it; give one profile\n"


def test_show_prints_a_report(tmp_path: Path) -> None:
    protocol = ScoreProtocol(
        scale=1, max_size=None, labels_resized=False, window=(8, 8), stride=(8, 8), classes=1, selection="last checkpoint"
    )
    scores = [
        Score(
            method="gkd", teacher="t", student="s", seed=0, benchmark="G2C", source="gta5", domain=domain,
            dataset=f"{domain}/val", in_domain=domain == "in-domain", miou=value, class_iou={"road": value},
            images=1, protocol=protocol,
        )
        for domain, value in (("in-domain", 61.25), ("cityscapes", 43.75))
    ]  # fmt: skip
    write_report(ScoreTable(scores=tuple(scores)), tmp_path)
    result = CliRunner().invoke(app, ["show", str(tmp_path)])
    assert result.exit_code == 0
    assert "cityscapes" in result.output
    assert "43.8" in result.output
    assert "61.2" in result.output


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    code = "import gkd_core.settings as s, errno\n"
    code += "def full(*a): raise OSError(errno.ENOSPC, 'No space left on device', '/x/y')\n"
    code += "s.load_settings = full\nfrom gkd_core.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "settings"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    words = "No space left on device; nothing half-written was kept; make room there, then run the same command again"
    assert result.stderr == f"gkd: /x/y: {words}\n"


@pytest.mark.parametrize(
    ("error", "status"), [(TransientError("later"), 75), (PlatformError("no"), 2), (TrainingError("nan"), 2)]
)
def test_the_exit_status_says_whether_waiting_may_help(
    error: GkdError, status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = typer.Typer(pretty_exceptions_enable=False)

    @commands.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["gkd"])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as end:
            run_command_line(commands)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert end.value.code == status
    assert capsys.readouterr().err == f"gkd: {error}\n"
