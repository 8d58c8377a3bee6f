"""The law of the house: no import runs up, no two rooms import each other, each tool has its rooms, the science stands alone.

Imports within functions count too: what is hidden there is an import all the same.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gkd_core"
# From the ground up. A room imports those of its own floor and of floors below.
FLOORS = (
    {"documents", "errors", "files", "messages", "methods", "notes", "paths", "records", "seeding",
      "settings", "system", "untrusted"},
    {"data", "distill", "evaluate", "export", "interop", "models", "predict", "task", "training"},
    {"cluster", "storage"},
    {"planning", "reports", "stages"},
    {"operations", "registry", "tracking", "versioning"},
    {"__init__", "cli", "flows"},  # the package itself is what a program imports
)  # fmt: skip
# Who may import a tool. `operations/metrics` reads what MLflow has, for Prometheus.
TOOLS = {
    "ray": ("cluster",),
    "boto3": ("storage", "operations"),
    "botocore": ("storage", "operations"),
    "mlflow": ("tracking", "registry", "storage", "operations/metrics"),
    "dvc": ("versioning",),
    "prefect": ("flows",),
    "onnx": ("export",),
    "onnxruntime": ("export",),
}
SCIENCE = (
    "data", "distill", "evaluate", "export", "interop", "models", "planning", "predict", "reports", "settings", "stages", "task",
    "training",
)  # fmt: skip
# Packages that the science can use and does without; torch looks for onnx itself, so that they are not blocked below.
OPTIONAL = ("onnx", "onnxruntime")
PLATFORM = (*(tool for tool in TOOLS if tool not in OPTIONAL), "psutil", "fastapi", "flows")
# The program that a Ray cluster runs for us: it is started where the platform is.
ON_THE_CLUSTER = "gkd_core.stages.remote_job"

BLOCKED_IMPORT = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if any(name == word or name.startswith(word + ".") for word in {blocked!r}):
            raise ModuleNotFoundError(f"No module named '{{name}}' (blocked)")
        return None

sys.meta_path.insert(0, Blocker())
for name in {modules!r}:
    importlib.import_module(name)
print(len(sys.modules))
"""


def room_of(file: Path) -> str:
    """The room of a file: the first folder or module below the package, or `flows`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return "flows" if parts[0] == "flows" else parts[1]


def imported(text: str) -> Iterator[str]:
    """Every module that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            if node.module == "gkd_core":
                yield from (f"gkd_core.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@cache
def imports() -> tuple[tuple[Path, str], ...]:
    """Files of ours, each with a module that it imports."""
    files = sorted(path for folder in (PACKAGE, ROOT / "flows") for path in folder.rglob("*.py"))
    return tuple((file, name) for file in files for name in imported(file.read_text(encoding="utf-8")))


@cache
def between_rooms() -> tuple[tuple[Path, str, str], ...]:
    """Files of ours, their room, and another room of which they import something."""
    found = []
    for file, name in imports():
        first, _, rest = name.partition(".")
        target = "flows" if first == "flows" else rest.partition(".")[0] if first == "gkd_core" else ""
        if target and target != room_of(file):
            found.append((file, room_of(file), target))
    return tuple(found)


def floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")}
    assert rooms | {"flows"} == set().union(*FLOORS)


def test_no_import_runs_up() -> None:
    upwards = [(file, target) for file, room, target in between_rooms() if floor(target) > floor(room)]
    assert [f"{file.relative_to(ROOT)} -> {target}" for file, target in upwards] == []


def test_no_two_rooms_import_each_other_by_any_way() -> None:
    edges: dict[str, set[str]] = {}
    for _, room, target in between_rooms():
        edges.setdefault(room, set()).add(target)
    circles = []
    for start in edges:
        reached, waiting = set(), list(edges[start])
        while waiting:
            room = waiting.pop()
            if room not in reached:
                reached.add(room)
                waiting += edges.get(room, ())
        circles += [start] if start in reached else []
    assert circles == []


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_used_in_its_rooms_alone(tool: str) -> None:
    allowed = [ROOT / "flows" if room == "flows" else PACKAGE / room for room in TOOLS[tool]]
    users = {file for file, name in imports() if name.partition(".")[0] == tool}
    assert users, f"nobody uses {tool}: take it out of the table"
    assert [str(file) for file in users if not any(file.is_relative_to(room) for room in allowed)] == []


def modules() -> list[str]:
    """Every module of the science."""
    files = (path.relative_to(ROOT).with_suffix("") for room in SCIENCE for path in (PACKAGE / room).rglob("*.py"))
    names = {".".join(path.parts).removesuffix(".__init__") for path in files}
    return sorted(names - {ON_THE_CLUSTER})


def test_the_science_imports_where_the_platform_is_absent() -> None:
    names = modules()
    assert "gkd_core.distill.qsd" in names
    code = BLOCKED_IMPORT.format(blocked=PLATFORM, modules=names)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_blocker_blocks() -> None:
    code = BLOCKED_IMPORT.format(blocked=PLATFORM, modules=["ray"])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "No module named 'ray' (blocked)" in result.stderr


def test_an_import_within_a_function_is_seen() -> None:
    assert list(imported("def f():\n    from gkd_core.flows import x\n    import ray.train\n")) == ["gkd_core.flows", "ray.train"]


def test_no_flow_hides_a_module_of_python() -> None:
    """Prefect leaves the folder of a flow's file at the front of the path, and spawned processes inherit that."""
    names = {path.stem for path in (ROOT / "flows").iterdir()}
    assert "pipeline" in names
    assert not names & set(sys.stdlib_module_names)
