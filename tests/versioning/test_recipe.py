"""The recipe in DVC's hands: what runs, what is restored, and what a failure says."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from dvc.lock import make_lock

from gkd_core.errors import PlatformError
from gkd_core.settings import Settings, load_settings
from gkd_core.stages import Recipe
from gkd_core.versioning.recipe import StageFailed, input_digests, output_digest, render
from gkd_core.versioning.workspace import create_workspace
from tests.reproducing import reproduce

REPOSITORY = Path(__file__).parents[2]


def test_committed_recipe_is_the_rendering_of_the_committed_params() -> None:
    expected = render(load_settings(REPOSITORY / "params.yaml"))
    assert (REPOSITORY / "dvc.yaml").read_text(encoding="utf-8") == expected, "run: gkd recipe --write"


def test_every_stage_of_the_plan_is_a_dvc_stage(tiny_settings: Settings) -> None:
    stages = yaml.safe_load(render(tiny_settings))["stages"]
    runs = Recipe.of(tiny_settings).plan
    assert list(stages) == [run.name for run in runs]
    for run in runs:
        assert stages[run.name]["cmd"] == run.command
        assert stages[run.name].get("deps", []) == [str(path) for path in run.inputs]
        assert stages[run.name]["outs"] == [str(run.output)]


def test_every_param_of_the_plan_is_a_key_of_the_settings(tiny_settings: Settings) -> None:
    tree = tiny_settings.model_dump(mode="json")
    for run in Recipe.of(tiny_settings).plan:
        for key in run.params:
            node: Any = tree
            for part in key.split("."):
                assert isinstance(node, Mapping) and part in node, f"{run.name}: {key}"
                node = node[part]


def test_runs_once_then_is_unchanged_then_is_restored_elsewhere(project: Path, workspace: Path, toys: Mapping[str, Any]) -> None:
    started: list[str] = []

    def outcome(where: Path) -> str:
        return reproduce(where, toys["make"], lambda: started.append(where.name))

    assert outcome(workspace) == "ran"
    assert outcome(workspace) == "unchanged"
    second = create_workspace(project, "second", Settings())
    assert outcome(second) == "restored"
    assert started == ["first"]
    assert (second / "artifacts/make/file").read_text() == "made\n"
    assert output_digest(second, toys["make"]) == output_digest(workspace, toys["make"])


def test_changed_params_run_anew(project: Path, workspace: Path, toys: Mapping[str, Any]) -> None:
    reproduce(workspace, toys["make"])
    other = create_workspace(project, "other", Settings(seed=1))
    assert reproduce(other, toys["make"]) == "ran"


def test_restored_outputs_are_safe_from_edits(project: Path, workspace: Path, toys: Mapping[str, Any]) -> None:
    reproduce(workspace, toys["make"])
    file = workspace / "artifacts/make/file"
    assert file.stat().st_nlink == 1 or not file.stat().st_mode & 0o222


def test_environment_reaches_the_command_and_inputs_have_digests(workspace: Path, toys: Mapping[str, Any]) -> None:
    reproduce(workspace, toys["make"])
    reproduce(workspace, toys["copy"], env={"GREETING": "hello"})
    assert (workspace / "artifacts/copy/greeting").read_text() == "hello\n"
    assert input_digests(workspace, toys["copy"]) == {"artifacts/make": output_digest(workspace, toys["make"])}


def test_failure_names_the_stage_and_its_status(workspace: Path, toys: Mapping[str, Any]) -> None:
    reproduce(workspace, toys["make"])
    with pytest.raises(StageFailed, match="refuse: failed with exit status 2") as caught:
        reproduce(workspace, toys["refuse"])
    assert caught.value.status == 2


def test_missing_input_is_dvcs_own_word(workspace: Path, toys: Mapping[str, Any]) -> None:
    with pytest.raises(PlatformError, match=r"copy: DVC says: .*artifacts/make"):
        reproduce(workspace, toys["copy"])


def test_unknown_digest_is_an_error(workspace: Path, toys: Mapping[str, Any]) -> None:
    reproduce(workspace, toys["make"])
    with pytest.raises(PlatformError, match="copy is not in it"):
        output_digest(workspace, toys["copy"])


def test_digests_are_read_whole_while_dvc_rewrites_its_lock_file(workspace: Path, toys: Mapping[str, Any]) -> None:
    reproduce(workspace, toys["make"])
    expected, stop = output_digest(workspace, toys["make"]), threading.Event()

    def rewrite() -> None:
        """As another stage's DVC process does when it ends: in place, in two pieces, under DVC's lock."""
        file, whole = workspace / "dvc.lock", (workspace / "dvc.lock").read_text()
        while not stop.is_set():
            lock = make_lock(str(workspace / ".dvc/tmp/lock"), wait=True)
            with lock, file.open("w") as stream:
                stream.write(whole[:20])
                stream.flush()
                time.sleep(0.02)
                stream.write(whole[20:])
            time.sleep(0.002)

    other = threading.Thread(target=rewrite)
    other.start()
    try:
        assert {output_digest(workspace, toys["make"]) for _ in range(10)} == {expected}
    finally:
        stop.set()
        other.join()


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises, also where the tests were started in the background, which a shell makes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_interrupt_stops_the_command(workspace: Path, toys: Mapping[str, Any]) -> None:
    reproduce(workspace, toys["make"])
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        reproduce(workspace, toys["sleep"])
    time.sleep(0.1)
    assert not [child for child in psutil.Process().children(recursive=True) if "sleep" in child.name()]
