"""Writes the bytecode of what an image's containers import: python -P compile.py service|worker, in a build.

A container's root is read-only, so what has no bytecode is compiled anew by every process. But all of it, 27 000 files, is
minutes of each build. So: what importing the project and the programs of the cluster brings in, by importing it; and the
packages below whole, without running them.
"""

from __future__ import annotations

import ast
import compileall
import importlib
import os
import pkgutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

# Of these every file: ours, and those whose modules are found by name at run time.
WHOLE = {
    "service": ("gkd_core", "flows", "prefect", "alembic", "mlflow/server", "mlflow/store", "sqlalchemy", "uvicorn"),
    "worker": (
        "gkd_core", "flows", "prefect", "dvc", "dvc_data", "dvc_objects", "mlflow/store",
        "ray/_private", "ray/dashboard", "ray/train", "ray/thirdparty_files", "psutil",  # Ray has a psutil of its own
    ),
}  # fmt: skip
# What the commands of compose.yaml and of the manifests import.
PROGRAMS = {
    "service": (
        "prefect.cli", "prefect.server.api.server", "uvicorn.protocols.http.auto", "uvicorn.protocols.websockets.auto",
        "mlflow.cli", "mlflow.server.auth", "mlflow.server.fastapi_app", "mlflow.server.handlers",
        "numpy", "pandas", "pyarrow.dataset", "pyarrow.parquet", "scipy.sparse", "asyncpg", "psycopg",
        "sqlalchemy.dialects.postgresql.asyncpg", "sqlalchemy.dialects.postgresql.psycopg", "boto3.session",
    ),
    "worker": (
        "prefect.cli.worker", "prefect.engine", "prefect.workers.process", "prefect.runner",
        "ray.scripts.scripts", "ray.dashboard.dashboard", "ray.dashboard.agent", "ray._private.workers.default_worker",
        "ray._private.log_monitor", "ray.autoscaler._private.monitor", "ray._private.runtime_env.agent.main",
        "ray.train.torch", "ray.job_submission", "dvc.cli", "dvc.repo", "dvc_s3", "mlflow.store.tracking.rest_store",
        "numpy", "pandas", "pyarrow.dataset", "pyarrow.parquet", "scipy.stats",
        "torch._dynamo", "torch.utils.data", "torch.utils.checkpoint", "torch.distributed.fsdp",
    ),
}  # fmt: skip
# Their modules are loaded one by one, each for what it brings in.
WALKED = {"service": ("flows", "gkd_core"), "worker": ("flows", "gkd_core", "ray.dashboard.modules", "dvc.commands")}


def location(path: str) -> Path:
    """The folder of an installed package, by its path: by name one may be found that Ray, once imported, put in its place."""
    folder = Path(sysconfig.get_path("purelib"), path)
    if not folder.is_dir():
        raise SystemExit(f"compile.py: {path}: no package of this environment")
    return folder


def imported_by(source: Path) -> Iterator[tuple[str, str | None]]:
    """What a file imports at any place, in functions too: a module, and what of it."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def bring_in(name: str, attribute: str | None, absent: set[str]) -> None:
    """Import; what an image does not have, as the service image has no torch, is noted."""
    try:
        module = importlib.import_module(name)
        if attribute is not None:
            getattr(module, attribute, None)  # a lazy module loads what it is asked for
    except ImportError as error:
        absent.add((error.name or name).partition(".")[0])


def main(image: str) -> None:
    """Compile, and say what it was."""
    started, absent = time.monotonic(), set[str]()
    for name in PROGRAMS[image]:
        importlib.import_module(name)  # these must be there
    for package in WALKED[image]:
        for module in pkgutil.walk_packages([str(location(package.replace(".", "/")))], f"{package}.", onerror=lambda _: None):
            bring_in(module.name, None, absent)
    for package in ("gkd_core", "flows"):
        for source in location(package).rglob("*.py"):
            for name, attribute in imported_by(source):
                bring_in(name, attribute, absent)
    for path in WHOLE[image]:
        if not compileall.compile_dir(location(path), quiet=1, workers=0):
            raise SystemExit(f"compile.py: {path}: not all of it compiles")
    print(f"compile.py: {image}: {len(sys.modules)} modules in {time.monotonic() - started:.0f} s")
    print(f"compile.py: asked for and not in this image: {', '.join(sorted(absent)) or 'nothing'}", flush=True)
    os._exit(0)  # what was imported may have started threads that wait


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PROGRAMS:
        raise SystemExit(__doc__)
    main(sys.argv[1])
