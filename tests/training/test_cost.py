"""What a stage costs: measured by its processes, summed over attempts, outside the stage's outputs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gkd_core.training import cost
from gkd_core.training.cost import FOLDER, Meter, ProcessCost, mean_speed, noting_cost, read_cost
from gkd_core.training.metrics import file_sink

USED = ProcessCost(
    role="stage", finished=True, seconds=10.0, cpu_seconds=4.0, gpu=False, peak_host_bytes=100, peak_gpu_bytes=0
)  # fmt: skip


def note(folder: Path, name: str, **facts: object) -> None:
    USED.model_copy(update=facts).write(folder / FOLDER / f"{name}.json")


def test_a_block_is_measured(tmp_path: Path) -> None:
    before = time.process_time()
    with noting_cost(tmp_path):
        while time.process_time() < before + 0.2:
            pass
    found = read_cost(tmp_path)
    assert found is not None
    assert 0.15 <= found.cpu_seconds < 5
    assert 0.1 <= found.seconds < 20
    assert (found.attempts, found.gpu_seconds, found.gpus, found.peak_gpu_bytes) == (1, 0, 0, 0)
    assert found.images_per_second is None
    # The high-water mark of this process: at least what it holds now, and no more than the machine has.
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident <= found.peak_host_bytes * 1.2 < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_that_of_the_program_and_not_of_the_one_that_started_it(tmp_path: Path) -> None:
    ballast = bytearray(300_000_000)
    code = f"from pathlib import Path; from gkd_core.training.cost import Meter; Meter(Path({str(tmp_path)!r}), 'stage').write()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    found = read_cost(tmp_path)
    assert found is not None
    assert 5_000_000 < found.peak_host_bytes < len(ballast)


def test_nothing_measured_is_no_zero(tmp_path: Path) -> None:
    assert read_cost(tmp_path) is None


def test_attempts_add_up_and_workers_are_counted_by_role(tmp_path: Path) -> None:
    note(tmp_path, "stage-1", finished=False)
    note(tmp_path, "stage-2", seconds=5.0, peak_host_bytes=120)
    note(tmp_path, "worker-0-1", role="worker-0", finished=False, seconds=3.0, gpu=True, peak_host_bytes=900, peak_gpu_bytes=50)
    note(tmp_path, "worker-0-2", role="worker-0", seconds=4.0, gpu=True, peak_host_bytes=800, peak_gpu_bytes=60)
    note(tmp_path, "worker-1-1", role="worker-1", seconds=6.0, gpu=True, peak_host_bytes=700, peak_gpu_bytes=55)
    found = read_cost(tmp_path)
    assert found is not None
    assert found.attempts == 2
    assert found.seconds == 15  # of the stage's own processes
    assert found.cpu_seconds == 5 * 4
    assert found.gpu_seconds == 3 + 4 + 6
    assert found.gpus == 2
    assert found.peak_host_bytes == 120 + 900 + 700
    assert found.peak_gpu_bytes == 60


def test_an_attempt_that_fails_is_noted_and_added_to(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), noting_cost(tmp_path):
        (tmp_path / "training.pt").touch()
        raise ZeroDivisionError
    with noting_cost(tmp_path):
        pass
    found = read_cost(tmp_path)
    assert found is not None
    assert found.attempts == 2


def test_an_attempt_that_fails_with_nothing_to_go_on_from_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), noting_cost(tmp_path / "artifacts" / "runs" / "stage"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_attempt_has_left_its_notes(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from gkd_core.training import cost
cost.WRITE_SECONDS = 0.05
with cost.noting_cost(Path({str(tmp_path)!r})):
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + 50
        while (found := read_cost(tmp_path)) is None or found.seconds < 0.2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    killed = read_cost(tmp_path)
    assert killed is not None
    with noting_cost(tmp_path):
        pass
    total = read_cost(tmp_path)
    assert total is not None
    assert (total.attempts, total.seconds >= killed.seconds >= 0.2) == (2, True)


@pytest.mark.parametrize(("left", "attempts"), [("training.pt", 2), ("metrics.jsonl", 1), ("student.json", 1)])
def test_a_finished_stage_opens_a_new_account_unless_its_checkpoint_is_there(tmp_path: Path, left: str, attempts: int) -> None:
    for _ in range(2):
        with noting_cost(tmp_path):
            (tmp_path / left).touch()
    found = read_cost(tmp_path)
    assert found is not None
    assert found.attempts == attempts


def test_workers_open_no_account(tmp_path: Path) -> None:
    note(tmp_path, "stage-1")
    with noting_cost(tmp_path, "worker-0"):
        pass
    assert {path.name.partition("-")[0] for path in (tmp_path / FOLDER).iterdir()} == {"stage", "worker"}


def test_a_damaged_note_is_set_aside_and_the_cost_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    note(tmp_path, "stage-2")
    (tmp_path / FOLDER / "stage-1.json").write_text("{")
    for _ in range(2):  # the second time by what was set aside
        found = read_cost(tmp_path)
        assert found is not None
        assert (found.attempts, found.lost) == (1, ("stage-1.json",))
    (record,) = caplog.records
    assert "stage-1.json: damaged" in record.getMessage() and "what the stage costs is not known" in record.getMessage()


def test_speed_is_the_mean_over_time(tmp_path: Path) -> None:
    # 10 updates at 100 images/s, then 30 at 50: of 40 updates' images, by their time.
    assert mean_speed([{"step": 10, "images_per_second": 100}, {"step": 40, "images_per_second": 50}]) == pytest.approx(
        40 / (10 / 100 + 30 / 50)
    )
    assert mean_speed([]) is None
    sink = file_sink(tmp_path)
    for step, speed in ((10, 100.0), (20, 1.0), (20, 50.0), (40, 50.0)):  # resumed at 10: what it did to 20 was lost
        sink(step, {"images_per_second": speed, "loss": 1.0})
    sink(41, {"domains": 1.0})
    Meter(tmp_path, "stage").write(finished=True)
    found = read_cost(tmp_path)
    assert found is not None
    assert found.images_per_second == pytest.approx(40 / (10 / 100 + 30 / 50))
    assert found.updates == 40


def test_a_gpu_counts_where_torch_works_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cuda:
        is_initialized = staticmethod(lambda: True)
        device_count = staticmethod(lambda: 2)
        max_memory_allocated = staticmethod(lambda device: 1000 + device)

    monkeypatch.setitem(cost.sys.modules, "torch", type("Torch", (), {"cuda": Cuda}))
    with noting_cost(tmp_path, "worker-0"):
        pass
    found = read_cost(tmp_path)
    assert found is not None
    assert (found.gpus, found.peak_gpu_bytes) == (1, 2001)
    assert found.gpu_seconds > 0
