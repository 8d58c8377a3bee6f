"""The notebook runs from its first cell to its last, and what it says of the student is so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gkd_core.predict.bundle import write_bundle
from tests.predict.conftest import CLASSES, bundle_of, segmentor_folder

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "student.ipynb"
# As Jupyter does it: every cell in one namespace, and the value of a last expression is shown.
RUN = """
import ast, json, sys
space = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] != "code":
        continue
    tree = ast.parse("".join(cell["source"]), cell["id"])
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, cell["id"], "exec"), space)
    if last is not None:
        print(repr(eval(compile(ast.Expression(last.value), cell["id"], "eval"), space)))
"""


def run(notebook: Path) -> subprocess.CompletedProcess[str]:
    """Run the code cells of a notebook, in their order, in a process of its own beside it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::SyntaxWarning", "-c", RUN, notebook.name]
    return subprocess.run(command, cwd=notebook.parent, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has what the notebook uses: itself, a picture of the pages, and a bundle where the stage leaves it."""
    (tmp_path / "docs/pictures").mkdir(parents=True)
    shutil.copyfile(NOTEBOOK, tmp_path / "docs/student.ipynb")
    shutil.copyfile(ROOT / "docs/pictures/world.png", tmp_path / "docs/pictures/world.png")
    folder = segmentor_folder(tmp_path / "segmentor")
    write_bundle(bundle_of(folder), folder / "segmentor.safetensors", tmp_path / "artifacts/bundle/gta5")
    return tmp_path


def test_the_notebook_runs_from_first_cell_to_last(project: Path) -> None:
    done = run(project / "docs/student.ipynb")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == repr(CLASSES)
    assert "vit_tiny_patch16_224 from gta5 by gkd, windows of (32, 32)" in lines
    assert "((64, 128), dtype('uint8'))" in lines
    shares = [float(line.split()[-2]) for line in lines if line.endswith(" %")]
    assert len(shares) == len(CLASSES) and sum(shares) == pytest.approx(100, abs=0.5)
    assert any(line.startswith("at night") for line in lines)


def test_a_cell_that_fails_would_be_seen(project: Path) -> None:
    notebook = project / "docs/student.ipynb"
    tree: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    tree["cells"][1]["source"] = ["1 / 0"]
    notebook.write_text(json.dumps(tree), encoding="utf-8")
    done = run(notebook)
    assert done.returncode != 0 and "ZeroDivisionError" in done.stderr


def test_it_is_a_notebook_as_git_should_have_it() -> None:
    """Without outputs, which would be binaries that change with every run; each cell with a name of its own."""
    tree = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (tree["nbformat"], tree["nbformat_minor"]) == (4, 5)
    code = [cell for cell in tree["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    names = [cell["id"] for cell in tree["cells"]]
    assert len(set(names)) == len(names)


def test_the_pages_link_to_it() -> None:
    assert "(docs/student.ipynb)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(student.ipynb)" in (ROOT / "docs/predict.md").read_text(encoding="utf-8")
