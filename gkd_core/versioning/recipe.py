"""The recipe in DVC's hands: `dvc.yaml` rendered from the plan, one stage reproduced, digests read back."""

from __future__ import annotations

import fcntl
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from gkd_core.errors import EXIT_TRANSIENT, DataError, PlatformError, TransientError
from gkd_core.messages import shown
from gkd_core.settings import Settings, read_yaml_mapping
from gkd_core.stages import StageRun, plan
from gkd_core.system.child_process import child_process, was_killed

Outcome = Literal["ran", "restored", "unchanged"]
OUTCOMES: tuple[Outcome, ...] = ("ran", "restored", "unchanged")
DVC_LOCK = Path(".dvc/tmp/lock")
HEADER = "# Written by `gkd recipe --write` with params.yaml: do not edit.\n"
QUIET = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}


class StageFailed(PlatformError):
    """A stage's command ended with an error, which it has shown itself.

    Attributes:
        stage: name of the stage run.
        status: exit status of its command; negative or above 128 where a signal ended it.
    """

    def __init__(self, stage: str, status: int) -> None:
        super().__init__(f"{stage}: failed with exit status {status}; its own message is in the log above")
        self.stage = stage
        self.status = status

    @property
    def may_pass(self) -> bool:
        """Whether the stage, run again, may succeed: a signal ended it, or it said so itself."""
        return was_killed(self.status) or self.status == EXIT_TRANSIENT


def render(settings: Settings) -> str:
    """The text of `dvc.yaml` for these settings: one DVC stage for each stage run of the plan.

    Raises:
        DataError: a path holds what DVC would take for a template.
    """
    return HEADER + yaml.safe_dump({"stages": {run.name: _entry(run) for run in plan(settings)}}, sort_keys=False, width=1000)


def _entry(run: StageRun) -> dict[str, Any]:
    entry: dict[str, Any] = {"cmd": run.command}
    if run.inputs:
        entry["deps"] = [path.as_posix() for path in run.inputs]
    if run.params:
        entry["params"] = list(run.params)
    if run.always:
        entry["always_changed"] = True
    entry["outs"] = [run.output.as_posix()]
    _refuse_templates(run, (run.name, run.command, *entry.get("deps", ()), *entry["outs"]))
    return entry


def _refuse_templates(run: StageRun, texts: Iterable[str]) -> None:
    """DVC fills in `${…}` from params.yaml wherever it stands, in a command behind the quotes of the shell."""
    for text in texts:
        if "${" in text:
            raise DataError(f"{run.stage}: '{shown(text)}' holds ${{, which DVC takes for a template; rename it")


def reproduce(
    workspace: Path,
    run: StageRun,
    on_start: Callable[[], None] = lambda: None,
    env: Mapping[str, str] | None = None,
    held: Sequence[int] = (),
) -> Outcome:
    """Bring one stage up to date, its inputs being so already.

    Args:
        on_start: called when the stage's command is about to run, not where its result is restored; the command waits for it.
        env: further environment variables of the command.
        held: open files with locks, which last as long as the command and all that it starts.

    Returns:
        "ran" where the command ran, "restored" where DVC's cache had the result, "unchanged" where it was in place.

    Raises:
        StageFailed: the command failed.
        PlatformError: DVC cannot do its work.
        TransientError: DVC's own process was killed.
    """
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "gkd_core.versioning.stage_process", run.name, str(theirs.fileno())]
    with (
        ours,
        child_process(command, cwd=workspace, env={**(env or {}), **QUIET}, pass_fds=[theirs.fileno(), *held]) as child,
        ours.makefile("rw", encoding="utf-8") as stream,
    ):
        theirs.close()
        verdict = stream.readline()
        if verdict == "start\n":
            on_start()
            print("go", file=stream, flush=True)
            verdict = stream.readline()
        if not verdict:
            status = child.wait()
            kind = TransientError if was_killed(status) else PlatformError
            raise kind(f"{run.name}: DVC ended with exit status {status} and no word; see the log above")
    return _outcome(run, verdict.strip())


def _outcome(run: StageRun, verdict: str) -> Outcome:
    for outcome in OUTCOMES:
        if verdict == outcome:
            return outcome
    word, _, rest = verdict.partition(" ")
    if word == "failed":
        raise StageFailed(run.name, int(rest))
    raise PlatformError(f"{run.name}: DVC says: {rest}")


def output_digest(workspace: Path, run: StageRun) -> str:
    """MD5 of a stage's output, as `dvc.lock` has it (a folder's ends in `.dir`)."""
    return _digests(workspace, run, "outs")[run.output.as_posix()]


def input_digests(workspace: Path, run: StageRun) -> dict[str, str]:
    """MD5 of each input of a stage, by path, as `dvc.lock` has it."""
    return _digests(workspace, run, "deps")


def _digests(workspace: Path, run: StageRun, kind: str) -> dict[str, str]:
    with _quiet_lock_file(workspace):
        lock = read_yaml_mapping(workspace / "dvc.lock")
    stage = lock.get("stages", {}).get(run.name)
    if stage is None:
        raise PlatformError(f"{workspace / 'dvc.lock'}: {run.name} is not in it; reproduce that stage first")
    return {item["path"]: item["md5"] for item in stage.get(kind, [])}


@contextmanager
def _quiet_lock_file(workspace: Path) -> Iterator[None]:
    """Wait until no DVC process writes `dvc.lock`, and keep them from it meanwhile.

    DVC writes it in place: read at the wrong moment, beside a stage that ends just then, it is cut off anywhere. While it does
    so it holds a lock (`flock`) on this file.
    """
    lock = workspace / DVC_LOCK
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
