"""The flow redistill against a real Prefect server: promotes, finds nothing to do, refuses, and takes back what fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities import Run
from typer.testing import CliRunner

from flows.server import PrefectServer
from gkd_core.cli import app
from gkd_core.data.world.writer import write_world
from gkd_core.operations.doctor.web import basic
from gkd_core.registry.champions import Champions
from gkd_core.registry.versions import FACTS, Registry
from gkd_core.settings import Settings, settings_from_tree
from gkd_core.storage.mlflow_store import CHALLENGER, CHAMPION
from gkd_core.tracking.flow_runs import Tracking

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
REPOSITORY = Path(__file__).parents[2]
Prefect = Callable[..., "subprocess.CompletedProcess[str]"]
NAME = "gkd-student-potsdam-rgb"
ANSWER = "answer: "
# Runs the flow once for each line that it is given, and says how it ended; before each, what a test breaks.
FLOW = f"""
import json, sys
import flows.promotion, flows.redistill
publish = flows.promotion._publish
for line in sys.stdin:
    given = json.loads(line)
    flows.promotion._publish = publish
    exec(given.pop("prelude"))
    state = flows.redistill.redistill(**given, return_state=True)
    data = state.result() if state.is_completed() else None
    ended = {{"type": state.type.value, "message": state.message, "data": data}}
    print("\\n{ANSWER}" + json.dumps(ended), flush=True)
"""
BREAK_PUBLISHING = """
def broken(*arguments):
    raise RuntimeError("the page cannot be written")
flows.promotion._publish = broken
"""
DIE_PUBLISHING = """
import os, signal
flows.promotion._publish = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def distilled(deployed: Prefect, project: Path) -> Prefect:
    """The deployments, of which redistill has run once."""
    done = deployed("deployment", "run", "gkd/redistill", "--watch")
    assert "finished successfully" in done.stdout, done.stdout + (project / "artifacts/logs/worker.log").read_text()
    return deployed


def test_the_deployment_promotes_the_first_student_and_then_finds_nothing_to_do(
    distilled: Prefect, project: Path, tracking: Tracking
) -> None:
    assert Registry(tracking.client, tracking.address).aliases(NAME) == {CHAMPION: "1"}
    before = _runs(tracking)
    (group,) = [run for run in before if run.data.tags["kind"] == "redistill"]
    (pipeline,) = [run for run in before if run.data.tags["kind"] == "pipeline"]
    assert pipeline.data.tags["mlflow.parentRunId"] == group.info.run_id
    assert {run.info.status for run in before} == {"FINISHED"}
    assert group.data.tags[f"decision.{NAME}"] == "version 1: first"
    started = time.monotonic()
    done = distilled("deployment", "run", "gkd/redistill", "--watch")
    assert time.monotonic() - started < 60, "from the command to its end"
    assert "finished successfully in 'NothingToDo'" in done.stdout, done.stdout
    log = (project / "artifacts/logs/worker.log").read_text()
    assert re.search(rf"nothing to do: {NAME}: version 1 is of today's data and recipe", log), log
    assert [run.info.run_id for run in _runs(tracking)] == [run.info.run_id for run in before], "nothing ran"


def test_a_finished_run_is_registered_and_promoted_by_hand(
    distilled: Prefect, project: Path, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    run = next(run.info.run_id for run in _runs(tracking) if run.data.tags["kind"] == "pipeline")
    assert _registry("register", run) == f"{NAME}: version 1 is the champion already\n"
    tracking.client.delete_registered_model(NAME)
    said = _registry("register", run)
    assert f"{NAME}: version 1 is @challenger" in said and f"Promote it: gkd registry promote {NAME} 1" in said
    assert re.search(r"P2R +potsdam-irrg +– +\d+\.\d\d +– +new", said), said
    assert "no champion yet" in _registry("gate", NAME)
    assert _registry("promote", NAME, "challenger", "--reason", "test") == f"{NAME}: @champion is version 1 now (was none)\n"
    assert Registry(tracking.client, tracking.address).aliases(NAME) == {CHAMPION: "1"}
    assert _registry("card", NAME).startswith(f"# {NAME}")


def _registry(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["registry", *arguments])
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.output


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory, tiny_tree: Mapping[str, Any]) -> Path:
    """A project whose datasets are pinned, all but one, and whose recipe has every stage."""
    folder = tmp_path_factory.mktemp("pinned")
    world = settings_from_tree({**tiny_tree, "data": tiny_tree["data"]}).data.world
    assert world is not None
    write_world(world, folder / "world")
    (folder / "data").mkdir()
    for name in ("potsdam", "proxy", "vaihingen"):
        (folder / "world" / name).rename(folder / "data" / name)
    shutil.rmtree(folder / "world")
    weights = {role: tiny_tree[role] | {"weights": "random"} for role in ("teacher", "student")}
    data = {"world": None, "root": "data", "benchmarks": ["P2R"]}
    (folder / "params.yaml").write_text(yaml.safe_dump({**tiny_tree, **weights, "data": data}), encoding="utf-8")
    (folder / "flows").symlink_to(REPOSITORY / "flows")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
    pin(folder, "potsdam", "proxy")
    return folder


@pytest.fixture
def champions(pinned: Path, monkeypatch: pytest.MonkeyPatch) -> Champions:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(Settings(), pinned)
    return Champions(Registry(tracking.client, tracking.address))


class FlowProcess:
    """A process, in the project with pins, that runs the flow time and again: loading Prefect takes longer than the flow.

    It is started when first called, and anew where a test had it killed.
    """

    def __init__(self, project: Path, server: PrefectServer) -> None:
        self._project = project
        self._environment = {**os.environ, **server.environment, "PYTHONPATH": f"{project}{os.pathsep}{REPOSITORY}"}
        self._process: subprocess.Popen[str] | None = None
        self.log = project / "flows.log"

    def __call__(self, *overrides: str, prelude: str = "", **parameters: Any) -> dict[str, Any]:
        """Run the flow; how it ended, or the exit status of a process that ended in its midst."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        given = {"overrides": list(overrides), "prelude": prelude, **parameters}
        print(json.dumps(given), file=process.stdin, flush=True)
        for line in process.stdout:
            if line.startswith(ANSWER):
                return dict(json.loads(line.removeprefix(ANSWER)))
        return {"status": process.wait()}

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            with self.log.open("a") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", FLOW], cwd=self._project, env=self._environment, text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                )  # fmt: skip
        return self._process


@pytest.fixture(scope="module")
def redistil(pinned: Path, server: PrefectServer) -> Iterator[FlowProcess]:
    process = FlowProcess(pinned, server)
    yield process
    process.stop()


@pytest.mark.slow
def test_changes_are_named_and_train_only_what_depends_on_them(pinned: Path, champions: Champions, redistil: FlowProcess) -> None:
    first = redistil()
    assert first["type"] == "COMPLETED", first["message"] + redistil.log.read_text()
    assert first["data"]["due"] == [f"{NAME}: there is no champion"]
    assert set(first["data"]["stages"]["0"].values()) == {"ran"}
    assert first["data"]["models"][NAME]["decision"] == "first"

    assert redistil()["message"].startswith("nothing to do: ")

    # An unpinned target: its student is the same, measured anew.
    _change(pinned, "vaihingen")
    found = redistil()
    due = found["data"]["due"]
    assert due and all(reason.startswith(f"{NAME}: the data changed: data/vaihingen") for reason in due)
    stages = found["data"]["stages"]["0"]
    again = {"prepare-data", "evaluate-potsdam-rgb", "bundle-potsdam-rgb", "report"}
    assert {name for name, outcome in stages.items() if outcome == "ran"} == again
    assert found["data"]["models"][NAME]["decision"] == "is the champion"
    assert redistil()["message"].startswith("nothing to do: "), "what was measured anew is known"

    # A pin of what stage 1a learns from: everything after it depends on it.
    old = _pin_digest(pinned, "proxy")
    _change(pinned, "proxy")
    pin(pinned, "proxy")
    found = redistil("registry.margin=0", "registry.max_drop=100")
    assert found["data"]["due"] == [f"{NAME}: the data changed: data/proxy: {old} → {_pin_digest(pinned, 'proxy')}"]
    assert found["data"]["stages"]["0"]["distill-proxy"] == "ran"

    # A setting of stage two alone.
    champion = champions.registry.version(NAME, CHAMPION)
    found = redistil("learn_task.updates=3", "registry.margin=100")
    assert f"{NAME}: the recipe changed: learn_task.updates: 2 → 3" in found["data"]["due"]
    stages = found["data"]["stages"]["0"]
    assert stages["distill-proxy"] == stages["distill-source-potsdam-rgb"] == "restored"
    assert stages["learn-task-potsdam-rgb"] == "ran"
    assert found["data"]["models"][NAME]["decision"] == "refused"
    assert champions.registry.aliases(NAME) == {
        CHAMPION: str(champion.version),
        CHALLENGER: found["data"]["models"][NAME]["version"],
    }
    again = redistil("registry.margin=100", settings={"learn_task": {"updates": 3}})
    assert "of today's data and recipe, was refused" in again["message"]


@pytest.mark.slow
def test_a_student_that_loses_a_domain_is_refused_and_an_old_champion_gets_a_further_seed(
    champions: Champions, redistil: FlowProcess
) -> None:
    redistil()
    before = champions.registry.aliases(NAME)[CHAMPION]
    original = _rescore(champions, {"potsdam-irrg": 99.0, "vaihingen-irrg": 0.0})
    changes = {"learn_task": {"updates": 4}, "registry": {"margin": 0, "max_drop": 5}}
    found = redistil(settings=changes)
    decision = found["data"]["models"][NAME]
    assert decision["decision"] == "refused"
    assert any("P2R potsdam-irrg is down by" in reason for reason in decision["reasons"])
    assert champions.registry.aliases(NAME)[CHAMPION] == before
    assert champions.registry.aliases(NAME)[CHALLENGER] == decision["version"]

    _rescore(champions, original)
    seeds = {version.tags["seed"] for version in champions.registry.versions(NAME)}
    assert seeds == {"0"}
    found = redistil("registry.margin=100", max_age_days=1e-6)
    assert "was promoted or last challenged" in found["data"]["due"][0]
    assert found["data"]["seeds"] == [1]


@pytest.mark.slow
@pytest.mark.parametrize(("prelude", "status"), [(BREAK_PUBLISHING, 0), (DIE_PUBLISHING, -9)], ids=["error", "SIGKILL"])
def test_what_fails_after_the_promotion_gives_the_old_champion_back(
    server: PrefectServer, champions: Champions, redistil: FlowProcess, prelude: str, status: int
) -> None:
    redistil()
    before = champions.registry.aliases(NAME)[CHAMPION]
    _rescore(champions, {"potsdam-irrg": 0.0, "vaihingen-irrg": 0.0})
    changed = ("learn_task.updates=5" if status == 0 else "learn_task.updates=6", "registry.margin=0")
    failed = redistil(*changed, prelude=prelude)
    if status == 0:
        assert failed["type"] == "FAILED" and "the page cannot be written" in failed["message"]
        assert champions.registry.aliases(NAME)[CHAMPION] == before
        assert champions.history(NAME)[-1].kind == "undo"
        assert champions.open_promotion(NAME) is None
    else:
        assert failed == {"status": status}
        left = champions.open_promotion(NAME)
        assert left is not None and champions.registry.aliases(NAME)[CHAMPION] == left.after != before
        assert redistil(*changed)["type"] == "FAILED", "that run may be at work still"
        _mark_crashed(server, left.by.removeprefix("flow run "))
    found = redistil(*changed)
    assert found["data"]["models"][NAME]["decision"] == "better", "the next run takes it up again"
    assert set(found["data"]["stages"]["0"].values()) == {"restored"}
    (*_, last) = champions.history(NAME)
    assert (last.kind, last.before) == ("promote", before)
    champions.rollback(NAME, "test", "done")


def pin(project: Path, *names: str) -> None:
    """`gkd data pin`."""
    command = [sys.executable, "-c", "from gkd_core.cli import main; main()", "data", "pin", *(f"data/{name}" for name in names)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _pin_digest(project: Path, name: str) -> str:
    return str(yaml.safe_load((project / f"data/{name}.dvc").read_text())["outs"][0]["md5"])


def _change(project: Path, name: str) -> None:
    """Give one image the content of another. Files of the cache are read-only links: they are replaced, not written to."""
    first, second, *_ = sorted(path for path in (project / "data" / name).rglob("*") if path.is_file())
    content = second.read_bytes()
    first.unlink()
    first.write_bytes(content)


def _rescore(champions: Champions, scores: Mapping[str, float]) -> dict[str, float]:
    """Write other scores of the champion into the registry, by domain; returns those that stood there."""
    registry = champions.registry
    version = registry.version(NAME, CHAMPION)
    facts = registry.facts(version)
    (entry,) = facts.standing.seeds
    old = {score.domain: score.miou for score in entry.scores if score.domain in scores}
    changed = tuple(score.model_copy(update={"miou": scores.get(score.domain, score.miou)}) for score in entry.scores)
    standing = facts.standing.model_copy(update={"seeds": (entry.model_copy(update={"scores": changed}),)})
    registry._write(version, {FACTS: facts.model_copy(update={"standing": standing})})
    return old


def _mark_crashed(server: PrefectServer, flow_run: str) -> None:
    """What the heartbeat automation does, some minutes later, to a run whose process is gone."""
    body = json.dumps({"state": {"type": "CRASHED"}, "force": True}).encode()
    address = f"{server.url}/api/flow_runs/{flow_run}/set_state"
    key = server.environment["PREFECT_API_AUTH_STRING"]
    request = urllib.request.Request(address, body, {"Content-Type": "application/json", **basic(key)})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["status"] == "ACCEPT"


def _runs(tracking: Tracking) -> list[Run]:
    return list(tracking.client.search_runs([tracking.experiment], order_by=["attributes.start_time ASC"]))
