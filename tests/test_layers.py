"""Who may import whom: the science stands without the platform around it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "gkd_core"
PLATFORM = ("ray", "mlflow", "dvc", "prefect", "boto3", "psutil", "fastapi", "flows", "gkd_core.adapters")

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


def modules() -> list[str]:
    """Every module of the package outside its adapters."""
    files = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    names = [".".join(path.parts).removesuffix(".__init__") for path in files]
    return sorted(name for name in names if not name.startswith("gkd_core.adapters"))


def test_everything_but_the_adapters_imports_where_the_platform_is_absent() -> None:
    names = modules()
    assert "gkd_core.distill.qsd" in names
    code = BLOCKED_IMPORT.format(blocked=PLATFORM, modules=names)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_blocker_blocks() -> None:
    code = BLOCKED_IMPORT.format(blocked=PLATFORM, modules=["ray"])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "No module named 'ray' (blocked)" in result.stderr


def test_no_flow_hides_a_module_of_python() -> None:
    """Prefect leaves the folder of a flow's file at the front of the path, and spawned processes inherit that."""
    names = {path.stem for path in (PACKAGE.parent / "flows").iterdir()}
    assert "pipeline" in names
    assert not names & set(sys.stdlib_module_names)
