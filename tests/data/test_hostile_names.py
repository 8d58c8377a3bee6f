"""Names that people give by accident or on purpose: each works, or is refused by name before anything runs."""

from __future__ import annotations

import io
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from configobj import ConfigObj
from hypothesis import given, settings
from hypothesis import strategies as st

from gkd_core.data.catalog.entries import DatasetEntry
from gkd_core.data.catalog.load import Domain, load_catalog
from gkd_core.data.files.reading import list_images
from gkd_core.data.verify.layout import survey
from gkd_core.documents import dump_yaml, parse_yaml
from gkd_core.errors import GkdError
from gkd_core.messages import shown
from gkd_core.settings import load_settings
from gkd_core.stages import Recipe
from gkd_core.untrusted import PLAIN_NAME
from gkd_core.versioning.recipe import render
from gkd_core.versioning.workspace import create_workspace

Result = TypeVar("Result")
HOSTILE = " \"'`[]{}()#,%$!&;|<>?*~=:@^+-._\\\t\n\r"
NAMES = st.text(st.sampled_from(HOSTILE + "ab1" + "éß日\u0301\u202e\u2028\x00\x7f"), min_size=1, max_size=8)
CHOSEN = [
    "day[1]",
    "-rf",
    ".hidden",
    "a b",
    "${seed}",
    "$HOME",
    "%s",
    "a#b",
    "a,b",
    "it's",
    'say "x"',
    "a\nb",
    "..",
    "~",
    "日本",
    "*",
    "a;b",
]


def catalog_of(dataset: str, split: str, folder: str = "images") -> str:
    """A catalog of one dataset, learnt from and measured on."""
    entry = {
        "folder": "d", "images": "{split}/*.png", "labels": "labels-{split}/*.png", "encoding": "cityscapes-train-ids",
        "splits": {split: {"folders": [folder]}},
    }  # fmt: skip
    reference = f"{dataset}/{split}"
    benchmark = {"title": "own", "source": reference, "validation": reference, "targets": {"same": reference}}
    return dump_yaml({"datasets": {dataset: entry}, "benchmarks": {"Own": benchmark}})


def recipe_of(top: Path, dataset: str, split: str, folder: str = "images") -> str:
    """The recipe that is made of a catalog with such names."""
    (top / "own.yaml").write_text(catalog_of(dataset, split, folder), encoding="utf-8")
    overrides = [f"data.catalogs=['{top}/own.yaml']", "data.benchmarks=[Own]", "data.world=null", "data.root=/data"]
    return render(load_settings(None, "demo", overrides))


def attempt(work: Callable[[], Result]) -> tuple[Result | None, str]:
    """What it gives, and no words; or nothing, and the words by which it is refused."""
    try:
        return work(), ""
    except GkdError as error:
        return None, str(error)


def is_of_the_catalog(words: str, top: Path) -> bool:
    """Whether a message names the file, and has nothing that a terminal would act on."""
    return words.startswith(f"{top}/own.yaml: ") and all(char.isprintable() or char == "\n" for char in words)


@pytest.mark.parametrize("place", ["dataset", "split"])
@settings(max_examples=60)
@given(name=NAMES | st.sampled_from(CHOSEN))
def test_a_dataset_or_split_is_plain_or_refused_when_the_catalog_is_read(place: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = {"dataset": "yard", "split": "train"} | {place: name}
        text, words = attempt(lambda: recipe_of(Path(folder), **names))
        assert (text is not None) == bool(PLAIN_NAME.fullmatch(name))
        if text is None:
            assert is_of_the_catalog(words, Path(folder))
            return
        commands = [shlex.split(stage["cmd"]) for stage in parse_yaml(text)["stages"].values()]
        assert all(words[:2] == ["gkd", "run"] and len(words) in (3, 5) for words in commands)
        assert {words[4] for words in commands if len(words) == 5} == {names["dataset"]}


@settings(max_examples=60)
@given(name=NAMES | st.sampled_from(CHOSEN))
def test_a_folder_of_any_name_is_read_as_it_is_called_or_refused(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        text, words = attempt(lambda: recipe_of(top, "yard", "train", name))
        if text is None:
            assert is_of_the_catalog(words, top) or "${" in words
            return
        assert any(f"/data/d/{name}" in stage.get("deps", ()) for stage in parse_yaml(text)["stages"].values())
        entry = DatasetEntry.model_validate(
            {"name": "d", "folder": ".", "images": "{split}/*.png", "splits": {"all": {"folders": [name]}}}
        )
        for there in {name, "a", "1", "day1"}:
            (top / there).mkdir(parents=True, exist_ok=True)
            (top / there / f"{'mine' if there == name else 'other'}.png").touch()
        assert [path.name for path in list_images(entry, top, "all")] == ["mine.png"]
        found = survey(Domain(load_catalog(), entry, "all"), top)
        assert [item.image.name for item in found.items] == ["mine.png"]


@settings(max_examples=40)
@given(name=(NAMES | st.sampled_from(CHOSEN)).filter(lambda name: name not in (".", "..") and "\0" not in name))
def test_a_project_of_any_name_keeps_all_that_is_its_own_or_is_refused(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder).resolve() / name
        project.mkdir()
        workspace, words = attempt(lambda: create_workspace(project, "one", load_settings(None, "demo", [])))
        if workspace is None:
            assert shown(name) in words
            assert len(words.splitlines()) == 1
            assert not list(project.iterdir())
            return
        read = ConfigObj(io.BytesIO((workspace / ".dvc/config").read_bytes()), encoding="utf-8")
        assert read["cache"]["dir"] == f"{project}/.dvc/cache"
        assert [path.name for path in Path(folder).iterdir()] == [name]


@pytest.mark.parametrize("name", ["a b", "a/b", "yard;ls", "$(ls)", "-x"])
def test_a_source_that_no_dataset_can_be_is_not_found_by_name(name: str) -> None:
    recipe = Recipe.of(load_settings(None, "demo", []))
    with pytest.raises(GkdError) as error:
        recipe.find("learn-task", name)
    assert name in str(error.value)
