"""Whatever is given to a command, it ends in success or in one line that says what was wrong: never in a traceback."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gkd_core.cli.app import app
from gkd_core.cli.run import EXIT_FAULT, _explain
from gkd_core.errors import EXIT_TRANSIENT, EXIT_USER_ERROR
from gkd_core.messages import one_line

X = "<x>"
DEMO = ["--profile", "demo"]
# One line for each command and place: where the hostile text goes.
LINES = [
    ["compare", X], ["compare", "--experiment", X], ["compare", "--kind", X], ["compare", "--last", X], ["compare", "--where", X],
    ["compare", "--report", X], ["compare", "--html", X],
    ["measure", X, "--output", "out", *DEMO], ["measure", "models:/gkd/1", "--output", X, *DEMO],
    ["measure", "models:/gkd/1", "--output", "out", "--domain", X, *DEMO],
    ["bundle", X, "-o", "out", *DEMO], ["bundle", "folder", "-o", X, *DEMO],
    ["bundle", "models:/gkd/1", "-o", "out", "--scores", X, *DEMO], ["predict", X, "a.png", "-o", "out", *DEMO],
    ["predict", "folder", "a.png", "-o", X, *DEMO], ["predict", "folder", "a.png", "-o", "out", "--device", X, *DEMO],
    ["predict", "folder", "a.png", "-o", "out", "--batch", X], ["predict", "folder", "a.png", "-o", "out", "--ids", X],
    ["latency", X, *DEMO], ["latency", "folder", "--against", X, *DEMO], ["latency", "folder", "--size", X, *DEMO],
    ["latency", "folder", "--device", X, *DEMO], ["latency", "folder", "-o", X, *DEMO], ["latency", "folder", "--repeats", X],
    ["bundle", "models:/gkd/1", "-o", "out", "--latency", X, *DEMO],
    ["settings", "--profile", X], ["settings", *DEMO, "--set", X], ["settings", *DEMO, "--set", f"seed={X}"],
    ["settings", *DEMO, "--set", f"{X}=1"], ["settings", *DEMO, "--set", f"data.catalogs=[{X}]"],
    ["plan", X], ["plan", "demo", "--mfu", X], ["plan", "demo", "--cluster", X], ["plan", "demo", "--set-cluster", X],
    ["plan", "demo", "--measured", X], ["plan", "demo", "--json", X], ["plan", "demo", "--nodes", X],
    ["plan", "demo", "--set", f"teacher.weights={X}"], ["plan", "demo", "--set", f"student.arch={X}"],
    ["plan", "demo", "--set", f"data.root={X}", "--set", "data.world=null"],
    ["plan", "demo", "--set", f"data.shards={X}", "--set", "data.world=null"],
    ["dry-run", X, "--depth", "1"], ["dry-run", "demo", "--depth", X],
    ["run", X, *DEMO], ["run", "distill-source", "--source", X, *DEMO],
    ["run", "distill-proxy", *DEMO, "--set", f"teacher.weights={X}"],
    ["recipe", "--profile", X], ["recipe", *DEMO, "--set", f"data.catalogs=[{X}]"],
    ["show", X], ["import-checkpoint", X, "--arch", "deit_small_patch16_224"],
    ["import-checkpoint", "binary", "--arch", X], ["import-checkpoint", "binary", "--arch", "a", "--benchmark", X],
    ["export", X, "--output", "a.safetensors"], ["export", "folder", "--output", X],
    ["demo-teacher", "--output", "a.safetensors", "--runs", "binary", X],
    ["data", "list", "--profile", X], ["data", "verify", X, *DEMO], ["data", "verify", "--jobs", X, *DEMO],
    ["data", "stats", X, *DEMO], ["data", "show", X, "--output", "a.png", *DEMO], ["data", "show", "--output", X, *DEMO],
    ["data", "prepare", X, "--output", "out", *DEMO], ["data", "prepare", "--output", X, *DEMO],
    ["data", "prepare", "--output", "out", "--shard-size", X, *DEMO], ["data", "add", X, "folder", *DEMO],
    ["data", "add", "gta5", X, *DEMO], ["data", "pin", X, *DEMO], ["data", "fetch", X, *DEMO],
    ["bucket", "bootstrap", X], ["bucket", "upload", X, "s3://b/p"], ["bucket", "upload", "folder", X],
    ["bucket", "download", X, "out"], ["bucket", "download", "s3://b/p", X],
    ["doctor", "--profile", X], ["registry", "card", X, *DEMO], ["registry", "gate", X, *DEMO],
    ["registry", "gate", "gkd", "--version", X, *DEMO], ["registry", "promote", X, "1", "--reason", "r", *DEMO],
    ["registry", "promote", "gkd", X, "--reason", "r", *DEMO], ["registry", "promote", "gkd", "1", "--reason", X, *DEMO],
    ["registry", "rollback", X, *DEMO], ["registry", "register", X, *DEMO], ["registry", "history", X, *DEMO],
    ["registry", "list", *DEMO, "--set", f"registry.public_key={X}"],
    ["infra", "bootstrap", "--bucket", X], ["infra", "backup", X], ["infra", "backup", "out", "--bucket", X],
    ["infra", "restore", X], ["infra", "restore", "folder", "--backup", X],
    ["infra", "restore", "folder", "--manifest-sha256", X],
    ["infra", "backups", X], ["infra", "check-backup", X], ["infra", "check-backup", "folder", "--backup", X],
    ["infra", "prune", X, "--keep", "1"], ["infra", "prune", "folder", "--keep", X],
    ["metrics", "serve", "--host", X, "--port", "70000"], ["metrics", "serve", "--port", X],
]  # fmt: skip
HOSTILE = [
    "", " ", "-", "--", "\n", "\x1b[2J", "a\x00b", "\udc80", "\u202egpj.exe", "x" * 5000, "9" * 5000, "-1", "1e999", "nan",
    "$(touch attacked)", "${HOME}", "{", "[", "a: b", "'", "*", "~nobody/x", "..", "../..", "/", "/dev/null", "/proc/self/mem",
    "folder", "pipe", "binary", "empty", "loop", "bomb.yaml", "s3://", "s3:///x", "s3://B_!/x", "s3://b/../x", "http://[", "file://[",
    "models:/", "models:/a/b/c", "models:/x@", "runs:/", "postgresql://u:p@[/d", "sqlite:////nowhere/x.db",
]  # fmt: skip
SECONDS = 90  # for one command with one text
FEW = 5  # texts that a quick run tries at each place, other ones at each


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of every awkward kind, no platform, and stores that do not answer."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 16)
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "bomb.yaml").write_text("a: &a [*a]\n", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "GKD_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1", "PREFECT_HOME": str(tmp_path / "prefect"),
        "TMPDIR": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return tmp_path


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"still at work after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("index", range(len(LINES)), ids=lambda index: " ".join(LINES[index]))
def test_a_command_ends_in_one_line(folder: Path, index: int, capsys: pytest.CaptureFixture[str]) -> None:
    _try(LINES[index], [HOSTILE[(index + step * len(HOSTILE) // FEW) % len(HOSTILE)] for step in range(FEW)], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_a_command_ends_in_one_line_whatever_it_is_given(
    folder: Path, line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _try(line, HOSTILE, capsys)


def _try(line: list[str], texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    faults = []
    for text in texts:
        with within(SECONDS):
            result = CliRunner().invoke(app, [part.replace(X, text) for part in line])
        error = result.exception
        if error is None or (isinstance(error, SystemExit) and result.exit_code in (0, EXIT_USER_ERROR, EXIT_TRANSIENT)):
            continue
        assert isinstance(error, Exception) and not isinstance(error, AssertionError), f"{text!r}: ended by {error!r}"
        status = _explain(error)
        said = capsys.readouterr().err
        if status == EXIT_FAULT or not said.startswith("gkd: ") or not all(part.isprintable() for part in said.splitlines()):
            faults.append(f"{text[:40]!a}: {type(error).__name__}: {one_line(error, 300)}")
    assert not faults, "\n".join(faults)
    assert not Path("attacked").exists()
