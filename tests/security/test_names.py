"""Names that come with data become no command, no path and no template, in any file that we write.

Two fences: a catalog takes plain names alone, and whatever renders a command or a file quotes what it is given, so that either
holds without the other.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from gkd_core.cli.app import app
from gkd_core.data.catalog.load import load_catalog
from gkd_core.errors import DataError, GkdError
from gkd_core.settings import Settings
from gkd_core.stages import StageRun
from gkd_core.untrusted import PLAIN_NAME
from gkd_core.versioning.recipe import render
from gkd_core.versioning.workspace import create_workspace

MARK = "attacked"
COMMANDS = [f"g$(touch {MARK})", f"g`touch {MARK}`", f"g;touch {MARK}", f"g&&touch {MARK}", f"g|touch {MARK}"]
COMMANDS += [f"g\ntouch {MARK}"]
OTHERS = [
    "", ".", "..", "../up", "/abs", "-rf", "--help", ".hidden", "a b", "a\tb", "a'b", 'a"b', "a\\b", "a*", "a?b", "[a]", "~",
    "#a", "a%b", "${data.root}", "{{x}}", "a=b", "a,b", "a:b", "!a", "é", "\u202egpj", "a\x1b[2Jb", "a\x00b", "x" * 300,
]  # fmt: skip
HOSTILE = COMMANDS + OTHERS
CLASSES = {"classes": ["road"], "colors": [[0, 0, 0]]}


def _catalog(**names: str) -> dict[str, Any]:
    """A whole catalog of one dataset, in which each kind of name can be another."""
    name = {"dataset": "own", "split": "train", "benchmark": "O2O", "taxonomy": "one", "encoding": "ids"} | names
    reference = f"{name['dataset']}/{name['split']}"
    return {
        "taxonomies": {name["taxonomy"]: CLASSES},
        "encodings": {name["encoding"]: {"taxonomy": name["taxonomy"], "ids": {0: 0}}},
        "datasets": {
            name["dataset"]: {
                "folder": "own", "images": "i/*.png", "labels": "l/*.png", "encoding": name["encoding"],
                "splits": {name["split"]: {}},
            }
        },
        "benchmarks": {
            name["benchmark"]: {"title": "t", "source": reference, "validation": reference, "targets": {"t": reference}}
        },
    }  # fmt: skip


def _written(folder: Path, tree: dict[str, Any]) -> Path:
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(tree, allow_unicode=False), encoding="utf-8")
    return file


def _refused(file: Path) -> str:
    """The one line by which a catalog is refused."""
    with pytest.raises(DataError) as refused:
        load_catalog([file])
    message = str(refused.value)
    assert message.isprintable() and len(message) < 1000 and str(file) in message, message
    return message


def test_the_catalog_of_these_tests_is_one(tmp_path: Path) -> None:
    assert load_catalog([_written(tmp_path, _catalog())]).benchmark("O2O").source.name == "own"


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("kind", ["dataset", "split", "benchmark", "taxonomy", "encoding"])
def test_a_catalog_takes_plain_names_alone(tmp_path: Path, kind: str, name: str) -> None:
    _refused(_written(tmp_path, _catalog(**{kind: name})))


@given(st.text(max_size=12))
@settings(max_examples=60)
def test_whatever_a_catalog_takes_as_a_name_needs_no_quotes(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.getbasetemp()
    file = _written(folder, _catalog(dataset=name, split=name, benchmark=name))
    try:
        catalog = load_catalog([file])
    except DataError:
        return
    assert name in catalog.datasets and PLAIN_NAME.fullmatch(name) and shlex.quote(name) == name
    assert (folder / name).parent == folder and yaml.safe_load(f"{name}: 1") is not None


@pytest.mark.parametrize("key", ["folder", "images", "labels", "list_in_dataset", "list_in_catalog", "folders"])
@pytest.mark.parametrize("path", ["../up/*.png", "/abs/*.png", "a/../../b/*.png", "a\\b/*.png", "a\n/*.png"])
def test_a_catalog_takes_paths_below_its_folders_alone(tmp_path: Path, key: str, path: str) -> None:
    tree = _catalog()
    entry = tree["datasets"]["own"]
    if key.startswith("list"):
        entry["splits"]["train"] = {key: path}
    elif key == "folders":
        entry |= {"images": "{split}/*.png", "labels": "l/*.png", "splits": {"train": {"folders": [path]}}}
    else:
        entry[key] = path
    _refused(_written(tmp_path, tree))


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("section", ["benchmark", "proxy", "source", "stage"])
def test_names_in_settings_and_commands_are_looked_up_never_used(tmp_path: Path, section: str, name: str) -> None:
    demo = ["--profile", "demo"]
    change = {"benchmark": f"data.benchmarks={json.dumps([name])}", "proxy": f"data.proxy={json.dumps(name)}"}
    if section in change:
        command = ["recipe", *demo, "--set", change[section], "--write"]
    else:
        command = ["run", *demo, *_run_arguments(section, name)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, GkdError | SystemExit) and result.exit_code != 0
    assert not list(tmp_path.iterdir())


def _run_arguments(section: str, name: str) -> list[str]:
    return ["--", name] if section == "stage" else ["distill-source", f"--source={name}"]


@pytest.mark.parametrize("name", COMMANDS, ids=ascii)
def test_a_hostile_catalog_writes_no_recipe(tmp_path: Path, name: str) -> None:
    file = _written(tmp_path, _catalog(dataset=name))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = CliRunner().invoke(
            app, ["recipe", "--profile", "demo", "--write", "--set", f"data.catalogs=[{file}]", "--set", "data.benchmarks=[O2O]"]
        )
    assert isinstance(result.exception, DataError) and "own.yaml" in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.yaml"]


# The second fence: what would come of it if a name had got through.


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_the_command_of_a_stage_gives_the_shell_a_name_and_no_command(tmp_path: Path, name: str) -> None:
    if "\x00" in name:
        pytest.skip("no argument of a process can hold it")
    stub = tmp_path / "gkd"
    stub.write_text("#!/usr/bin/env python3\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n", encoding="utf-8")
    stub.chmod(0o755)
    run = StageRun("distill-source", name, (), (), Path("out"))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        ["sh", "-c", run.command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(result.stdout) == ["run", "distill-source", "--source", name]
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("place", ["command", "deps", "outs"])
def test_a_template_of_dvc_in_a_recipe_is_refused(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    parts = {"command": "own", "deps": "in", "outs": "out"} | {place: "${data.root}"}
    run = StageRun("distill-source", parts["command"], (Path(parts["deps"]),), (), Path(parts["outs"]))
    monkeypatch.setattr("gkd_core.stages.recipe.Recipe.plan", (run,))
    with pytest.raises(DataError, match="which DVC takes for a template"):
        render(Settings())


FOLDERS = [
    "a b", "a#b", "a,b", "a;b", "a=b", "a$(touch attacked)b", "a%b", "[core]", "a'b", 'a"b', "ü",
    "a{0}b", "a${HOME}b", "a\nb", "a'b\"c",
]  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_dvc_reads_from_a_workspace_the_folders_that_were_meant(tmp_path: Path, name: str) -> None:
    """`#` in a project's path once put the cache outside of it, for all to write."""
    project = tmp_path / name
    project.mkdir()
    workspace = create_workspace(project, "first", Settings())
    read = Config(str(workspace / ".dvc"))
    assert (read["cache"]["dir"], read["core"]["site_cache_dir"]) == (f"{project}/.dvc/cache", f"{workspace}/.dvc/site")


@pytest.mark.parametrize("name", ["a\rb", "a%(here)sb", "a\udc80"], ids=ascii)
def test_a_project_in_a_folder_that_no_file_can_name_is_refused(tmp_path: Path, name: str) -> None:
    project = tmp_path / name
    project.mkdir()
    with pytest.raises(GkdError) as refused:
        create_workspace(project, "first", Settings())
    assert str(refused.value).isprintable() and not (project / "artifacts").exists()
