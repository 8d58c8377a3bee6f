"""`gkd new`: what it lays out is what this repository has for itself, and nothing is overwritten or left half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.utilities.importtools import import_object
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.errors import DataError, GkdError
from gkd_core.settings import dump_settings, load_settings
from gkd_core.stages import Recipe
from gkd_core.versioning.project import PLACES, SHIPPED, lay_out

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "a project of mine"
    lay_out(folder, load_settings(None, "demo"))
    return folder


def test_the_repositorys_params_are_those_of_a_new_project_without_its_own_catalog(project: Path) -> None:
    new = load_settings(project / "params.yaml")
    assert new.data.catalogs == ("./catalog.yaml",)
    without = new.model_copy(update={"data": new.data.model_copy(update={"catalogs": ()})})
    assert dump_settings(without) == (REPOSITORY / "params.yaml").read_text(encoding="utf-8")


def test_the_repositorys_stages_are_those_of_a_new_project(project: Path) -> None:
    new, own = (yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"] for folder in (project, REPOSITORY))
    for stage in new.values():
        if "catalog.yaml" in stage.get("deps", ()):
            stage["deps"].remove("catalog.yaml")
    for stage in (*new.values(), *own.values()):
        stage["deps"] = stage.get("deps", [])
    assert new == own


def test_dvc_yaml_is_what_gkd_recipe_writes_there(project: Path) -> None:
    before = (project / "dvc.yaml").read_text(encoding="utf-8")
    command = [sys.executable, "-c", "from gkd_core.cli import main; main()", "recipe"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == before


@pytest.mark.parametrize("name", ["prefect.yaml", "prefect.toml", "dvcignore", "dvc-config"])
def test_a_file_that_both_have_is_one(name: str) -> None:
    assert Path(str(SHIPPED / name)).resolve() == (REPOSITORY / PLACES[name]).resolve()


def test_every_shipped_file_is_laid_out_and_the_wheel_has_it(project: Path) -> None:
    assert {path.name for path in SHIPPED.iterdir()} == set(PLACES)
    found = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert found == {*PLACES.values(), "params.yaml", "dvc.yaml"}


def test_the_deployments_name_the_flows_of_the_installed_package(project: Path) -> None:
    new, own = (
        yaml.safe_load((folder / "prefect.yaml").read_text(encoding="utf-8"))["deployments"] for folder in (project, REPOSITORY)
    )
    assert len(new) == len(own) >= 5
    for deployment, original in zip(new, own, strict=True):
        assert deployment | {"entrypoint": ""} == original | {"entrypoint": ""}
        assert "/" not in deployment["entrypoint"]
        assert import_object(deployment["entrypoint"]).name == "gkd"


def test_dvc_reads_it(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "dag", "--dot"], cwd=project, capture_output=True, text=True, timeout=120, check=True
    )
    assert '"distill-proxy" -> "distill-source-gta5"' in done.stdout
    assert not (project / "dvc.lock").exists()


def test_an_empty_catalog_is_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert Recipe.of(load_settings(Path("params.yaml"))).catalog.datasets


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_nothing_is_overwritten(tmp_path: Path, taken: str) -> None:
    target = tmp_path / "p"
    if taken == "folder":
        target.mkdir()
    mine = target / "mine" if taken == "folder" else target
    mine.write_text("mine")
    done = CliRunner().invoke(app, ["new", str(target)])
    assert isinstance(done.exception, GkdError) and "\n" not in str(done.exception)
    assert mine.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path not in (target, mine)] == []


def test_what_comes_to_lie_there_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "p"

    def another(settings: object) -> str:
        target.mkdir()
        (target / "mine").write_text("mine")
        return ""

    monkeypatch.setattr("gkd_core.versioning.project.dump_settings", another)
    with pytest.raises(GkdError, match="is not empty"):
        lay_out(target, load_settings(None, "demo"))
    assert [path.name for path in tmp_path.rglob("*")] == ["p", "mine"]


def test_an_empty_folder_is_taken_and_the_own_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p").mkdir()
    lay_out(tmp_path / "p", load_settings(None, "demo"))
    assert (tmp_path / "p/params.yaml").is_file()
    (tmp_path / "q").mkdir()
    monkeypatch.chdir(tmp_path / "q")
    with pytest.raises(GkdError, match="name a new one"):
        lay_out(tmp_path / "q", load_settings(None, "demo"))


def test_settings_that_ask_for_no_plan_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="NONE"):
        lay_out(tmp_path / "p", load_settings(None, "demo", ["data.benchmarks=[NONE]"]))
    assert list(tmp_path.iterdir()) == []
