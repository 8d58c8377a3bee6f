"""DVC's programs: where their databases lie, and that none fails without a word."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gkd_core.cli.run import run_command_line
from gkd_core.errors import PlatformError, SettingsError, TransientError
from gkd_core.settings import Settings
from gkd_core.stages import Recipe
from gkd_core.system.last_words import LastWords
from gkd_core.versioning.dvc_process import DvcProcess, dvc_process
from gkd_core.versioning.hashes import SoundRepo
from gkd_core.versioning.recipe import StageFailed
from gkd_core.versioning.workspace import create_workspace
from tests.read_only import run_with_read_only_var_tmp
from tests.reproducing import reproduce
from tests.versioning.conftest import ToyRun

REPOSITORY = Path(__file__).parents[2]
DIGESTS = """
import json, sys
from pathlib import Path
from gkd_core.settings import settings_from_tree
from gkd_core.versioning.fingerprint_now import input_digests_now
from gkd_core.versioning.pinned_data import data_repo, pin
project, settings = Path(sys.argv[1]), settings_from_tree({"data": {"world": None, "root": "data"}})
with data_repo(project) as repo:
    pin(repo, "data/yard")
found = input_digests_now(project, settings, [Path("data/proxy")])
print(json.dumps({"pinned": (project / "data/yard.dvc").read_text(), "digests": found}))
"""


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    """A project with data, as a clone has it."""
    for name in ("yard", "proxy"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "a.png").write_text(name)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text((REPOSITORY / ".dvc" / "config").read_text())
    return tmp_path


def test_dvc_works_where_var_tmp_cannot_be_written(owner: Path) -> None:
    done = run_with_read_only_var_tmp(DIGESTS, [str(owner)], REPOSITORY)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "md5: " in found["pinned"] and found["digests"]["data/proxy"].endswith(".dir")


def test_dvcs_databases_lie_in_the_project_and_are_no_other_users_to_write(owner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    with SoundRepo(str(owner)) as repo:
        place = Path(repo.site_cache_dir)
    assert place.is_relative_to(owner / ".dvc" / "site")
    made = [path for path in (owner / ".dvc" / "site", owner / ".dvc" / "site" / "repo", place) if path.stat().st_mode & 0o002]
    assert not made
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(owner / "elsewhere"))
    with SoundRepo(str(owner)) as repo:
        assert Path(repo.site_cache_dir).is_relative_to(owner / "elsewhere"), "a user's own choice holds"


def test_git_leaves_the_databases_alone() -> None:
    assert "/site" in (REPOSITORY / ".dvc" / ".gitignore").read_text().splitlines()


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """What a program of one line makes of its parent's asking."""
    package = tmp_path / "gkd_core_programs"
    package.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))

    def hear(source: str) -> str:
        # Found as a module beside the real ones: their package is looked at in the order of its path.
        (package / "toy_process.py").write_text(source)
        (tmp_path / "sitecustomize.py").write_text(
            f"import gkd_core.versioning\ngkd_core.versioning.__path__.append({str(package)!r})\n"
        )
        with dvc_process("toy", "toy_process", ["argument"], tmp_path) as dvc:
            assert isinstance(dvc, DvcProcess)
            return dvc.hear()

    return hear


def test_a_program_is_given_its_arguments_and_heard(heard: Callable[[str], str]) -> None:
    assert heard("def main(parent, name):\n    print(name, file=parent)\n") == "argument"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def main(parent, name):\n    open('/no/such/folder/file', 'w')\n", r"\[Errno 2\] No such file .*/no/such/folder/file"),
        ("def main(parent, name):\n    raise ValueError('two\\nlines')\n", "ValueError: two lines$"),
        ("def main(parent, name):\n    raise SystemExit('no room')\n", "no room$"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "def main(parent, name):\n    parent.write('half'); parent.flush(); import os; os._exit(3)\n",
            "status 3 and said nothing",
        ),
    ],
)
def test_what_a_program_fails_of_is_told(heard: Callable[[str], str], source: str, words: str) -> None:
    with pytest.raises(PlatformError, match=f"^toy: DVC .*{words}") as raised:
        heard(source)
    assert type(raised.value) is PlatformError and "\n" not in str(raised.value)


def test_a_program_that_is_killed_may_be_started_again(heard: Callable[[str], str]) -> None:
    with pytest.raises(TransientError, match="toy: DVC was ended by SIGKILL"):
        heard(f"import os\ndef main(parent, name):\n    os.kill(os.getpid(), {int(signal.SIGKILL)})\n")


def test_a_stage_that_fails_says_why_to_who_started_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Quoted for the shell that DVC has.
    program = (
        "from gkd_core.cli.run import run_command_line; from gkd_core.errors import DataError; "
        'run_command_line(lambda: (_ for _ in ()).throw(DataError("data/yard: no image")))'
    )
    run = ToyRun("fail", None, (), ("seed",), Path("artifacts/fail"), shell=f"{sys.executable} -c '{program}'")
    quiet = ToyRun("quiet", None, (), ("seed",), Path("artifacts/quiet"), shell="exit 3")
    monkeypatch.setattr(Recipe, "plan", (run, quiet))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    workspace = create_workspace(project, "first", Settings())
    with pytest.raises(StageFailed, match=r"^fail: failed with exit status 2: data/yard: no image$"):
        reproduce(workspace, run)
    with pytest.raises(StageFailed, match="quiet: failed with exit status 3: what it printed is on the terminal"):
        reproduce(workspace, quiet)


def test_last_words_of_an_earlier_try_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise SettingsError("seed: given 'x'\nepochs: given -1")

    words = LastWords(tmp_path / "folder" / "words")
    for name, value in words.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        run_command_line(fail)  # type: ignore[arg-type]
    assert words.read() == "seed: given 'x' epochs: given -1"
    assert LastWords(tmp_path / "folder" / "words").read() is None


def test_last_words_that_cannot_be_written_are_no_failure_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise SettingsError("seed: given 'x'")

    for name, value in LastWords(tmp_path / "words").environment.items():
        monkeypatch.setenv(name, f"{value}/x/y")
    with pytest.raises(SystemExit, match="2"):
        run_command_line(fail)  # type: ignore[arg-type]
    first, second = capsys.readouterr().err.splitlines()
    assert first == "gkd: seed: given 'x'" and "is not told why" in second
