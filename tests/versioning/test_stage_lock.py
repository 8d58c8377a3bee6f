"""Turns at a stage: among threads, among processes, and after a holder that was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from gkd_core.stages import StageRun
from gkd_core.versioning.stage_lock import digest_of, stage_lock

RUN = StageRun("learn-task", "gta5", (), (), Path("artifacts/learn-task/gta5"))
OTHER = StageRun("learn-task", "cityscapes", (), (), Path("artifacts/learn-task/cityscapes"))
HOLD = """
import sys, time
from pathlib import Path
from gkd_core.versioning.stage_lock import stage_lock
from gkd_core.stages import StageRun
run = StageRun("learn-task", "gta5", (), (), Path("artifacts/learn-task/gta5"))
with stage_lock(Path(sys.argv[1]), run, "abc", "the flow run brave-newt"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_digest_is_that_of_the_run_folder() -> None:
    assert digest_of(Path("/project/artifacts/runs/learn-task-gta5-0123abcd"), RUN) == "0123abcd"


def test_one_at_a_time_and_the_waiting_one_is_told_once_by_whom(tmp_path: Path) -> None:
    inside, most, told = 0, 0, list[str]()

    def work(name: str) -> None:
        nonlocal inside, most
        with stage_lock(tmp_path, RUN, "abc", name, told.append):
            inside += 1
            most = max(most, inside)
            time.sleep(0.7)
            inside -= 1

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert len(told) == 1 and told[0] in ("one", "two")


@pytest.mark.parametrize(("run", "digest"), [(OTHER, "abc"), (RUN, "def")])
def test_another_stage_or_other_inputs_do_not_wait(tmp_path: Path, run: StageRun, digest: str) -> None:
    told: list[str] = []
    with stage_lock(tmp_path, RUN, "abc", "one"), stage_lock(tmp_path, run, digest, "two", told.append):
        assert told == []


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"

        def tell(name: str) -> None:
            told.append(name)
            holder.send_signal(signal.SIGKILL)

        with stage_lock(tmp_path, RUN, "abc", "us", tell):
            assert told == ["the flow run brave-newt"]


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), stage_lock(tmp_path, RUN, "abc", "one"):
        raise ValueError("broken")
    told: list[str] = []
    with stage_lock(tmp_path, RUN, "abc", "two", told.append):
        assert told == []


# A stage's process that needs a while to end, as one does that writes a checkpoint.
SLOW = "trap 'sleep 1.5; exit' TERM; echo $$ > {path}; while :; do sleep 0.1; done"
KILLED = """
import sys, time
from pathlib import Path
from gkd_core.system.child_process import child_process
from gkd_core.versioning.stage_lock import stage_lock
from gkd_core.stages import StageRun
run = StageRun("learn-task", "gta5", (), (), Path("out"))
with stage_lock(Path(sys.argv[1]), run, "abc", "one") as lock, child_process(["sh", "-c", sys.argv[2]], pass_fds=[lock]):
    time.sleep(1000)
"""


def test_the_lock_of_a_killed_process_lasts_as_long_as_its_stage(tmp_path: Path) -> None:
    said = tmp_path / "stage"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), SLOW.format(path=said)]) as holder:
        while not (said.exists() and said.read_text().endswith("\n")):
            assert holder.poll() is None
            time.sleep(0.02)
        holder.kill()
    stage = int(said.read_text())
    assert psutil.pid_exists(stage), "it takes its time to end"
    with stage_lock(tmp_path, RUN, "abc", "two"):
        assert not psutil.pid_exists(stage)
