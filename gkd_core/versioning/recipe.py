"""The recipe in DVC's hands: `dvc.yaml` rendered from the plan, one stage reproduced, digests read back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from gkd_core.documents import dump_yaml
from gkd_core.errors import EXIT_TRANSIENT, DataError, PlatformError
from gkd_core.messages import shown
from gkd_core.settings import Settings, read_yaml_mapping
from gkd_core.stages import Recipe, StageRun
from gkd_core.system.child_process import was_killed
from gkd_core.system.last_words import LastWords
from gkd_core.versioning.dvc_process import DvcProcess, dvc_process

Outcome = Literal["ran", "restored", "unchanged"]
OUTCOMES: tuple[Outcome, ...] = ("ran", "restored", "unchanged")
DVC_LOCK = Path(".dvc/tmp/lock")
HEADER = "# Written by `gkd recipe --write` with params.yaml: do not edit.\n"
SAID = Path(".dvc/tmp/last-words")  # of the stages' commands, a file each


class StageFailed(PlatformError):
    """A stage's command ended with an error.

    Attributes:
        stage: name of the stage run.
        status: exit status of its command; negative or above 128 where a signal ended it.
    """

    def __init__(self, stage: str, status: int, said: str | None = None) -> None:
        words = said or "what it printed is on the terminal, or in the log of the worker"
        super().__init__(f"{stage}: failed with exit status {status}: {words}")
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
    return render_plan(Recipe.of(settings))


def render_plan(recipe: Recipe) -> str:
    """As `render`, of a recipe whose catalog is loaded already."""
    stages = {run.name: _entry(run) for run in recipe.plan}
    return HEADER + dump_yaml({"stages": stages}, width=1000)


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


class Reproduction:
    """One stage as DVC brings it up to date: it has looked at the inputs, and the command waits for `work`."""

    def __init__(self, run: StageRun, dvc: DvcProcess, said: LastWords) -> None:
        self._run, self._dvc, self._said = run, dvc, said
        verdict = dvc.hear()
        self.is_due = verdict == "start"
        self._outcome: Outcome | None = None if self.is_due else self._read(verdict)

    @property
    def outcome(self) -> Outcome:
        """ "ran" where the command ran, "restored" where DVC's cache had the result, "unchanged" where it was in place."""
        if self._outcome is None:
            raise PlatformError(f"{self._run.name}: its command has not run")
        return self._outcome

    def work(self) -> None:
        """Run the stage's command, where it is due.

        Raises:
            StageFailed: the command failed.
            PlatformError: DVC cannot do its work.
            TransientError: DVC's own process was killed.
        """
        self._dvc.say("go")
        self._outcome = self._read(self._dvc.hear())

    def _read(self, verdict: str) -> Outcome:
        for outcome in OUTCOMES:
            if verdict == outcome:
                return outcome
        word, _, rest = verdict.partition(" ")
        if word == "failed":
            raise StageFailed(self._run.name, int(rest), self._said.read())
        raise PlatformError(f"{self._run.name}: DVC says: {rest}")


@contextmanager
def reproduction(
    workspace: Path, run: StageRun, env: Mapping[str, str] | None = None, held: Sequence[int] = ()
) -> Iterator[Reproduction]:
    """One stage brought up to date, its inputs being so already; its command runs only where `work` is called.

    Args:
        env: further environment variables of the command.
        held: open files with locks, which last as long as the command and all that it starts.

    Raises:
        PlatformError: DVC cannot do its work.
        TransientError: DVC's own process was killed.
    """
    said = LastWords(workspace / SAID / run.name)
    with dvc_process(run.name, "stage_process", [run.name], workspace, {**(env or {}), **said.environment}, held) as dvc:
        yield Reproduction(run, dvc, said)


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
    with FileLock(lock, fallback_to_soft=False):
        yield
