"""DVC's digests of a plan's inputs as they are now, before anything runs; by a DVC in a process of its own.

Run as a program in a workspace, it reads a list of paths from the JSON file named second and says `{path: digest}`, or
`{"failed": message}`, on the socket whose number comes first.
"""

from __future__ import annotations

import json
import logging
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from gkd_core.adapters.child import child_process
from gkd_core.adapters.dvc_hashes import share_hashes
from gkd_core.adapters.dvc_pins import pinned_inputs
from gkd_core.adapters.dvc_recipe import QUIET
from gkd_core.adapters.mlflow_students import loose_inputs, pin_digests
from gkd_core.adapters.workspace import WORKSPACES, anchor_paths, create_workspace, workspace_in_use
from gkd_core.errors import PlatformError
from gkd_core.settings import Settings
from gkd_core.stages.fingerprint import Fingerprint, fingerprint_of


def fingerprint_now(project: Path, settings: Settings) -> Fingerprint:
    """The fingerprint that a run would have if it began now. Nothing is trained, fetched or copied.

    Raises:
        DataError: a dataset is neither here nor pinned.
        PlatformError: DVC cannot look at an input.
    """
    settings = anchor_paths(settings, project)
    pinned = pinned_inputs(project, settings)
    loose = loose_inputs(project, settings, pinned)
    digests = input_digests_now(project, settings, loose) if loose else {}
    return fingerprint_of(settings, pin_digests(pinned) | digests)


def input_digests_now(project: Path, settings: Settings, paths: Sequence[Path]) -> dict[str, str]:
    """DVC's digest of each of these inputs of the plan, as `dvc.lock` would state it.

    DVC looks from a workspace that lasts as long as the look, so that names and rules are those of a run.

    Raises:
        PlatformError: DVC cannot look at one of them.
    """
    (project / WORKSPACES).mkdir(parents=True, exist_ok=True)
    name = Path(tempfile.mkdtemp(prefix="look-", dir=project / WORKSPACES))
    name.rmdir()  # `create_workspace` makes it
    workspace = create_workspace(project, name.name, settings)
    try:
        with workspace_in_use(workspace):
            return _ask(workspace, [path.as_posix() for path in paths])
    finally:
        shutil.rmtree(workspace)


def _ask(workspace: Path, paths: list[str]) -> dict[str, str]:
    wanted = workspace / "wanted.json"
    wanted.write_text(json.dumps(paths), encoding="utf-8")
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "gkd_core.adapters.dvc_inputs", str(theirs.fileno()), str(wanted)]
    with (
        ours,
        child_process(command, cwd=workspace, env=QUIET, pass_fds=[theirs.fileno()]) as child,
        ours.makefile("r", encoding="utf-8") as stream,
    ):
        theirs.close()
        line = stream.readline()
        if not line:
            raise PlatformError(f"DVC ended with exit status {child.wait()} while it looked at the data; see the log above")
    answer: dict[str, str] = json.loads(line)
    if "failed" in answer:
        raise PlatformError(f"DVC cannot look at the data: {answer['failed']}")
    return answer


def _look(wanted: Path) -> dict[str, str]:
    paths = set(json.loads(wanted.read_text(encoding="utf-8")))
    found: dict[str, str] = {}
    try:
        with Repo(".", _wait_for_lock=True) as repo:
            share_hashes(repo)
            for stage in repo.index.stages:
                for dependency in stage.deps:
                    path = dependency.def_path
                    if path in paths and path not in found:
                        found[path] = str(dependency.get_hash().value)
    except (DvcException, OSError) as error:
        return {"failed": " ".join(str(error).split())}
    return found


if __name__ == "__main__":
    logging.getLogger("dvc").setLevel(logging.ERROR)  # what DVC would say, the flow says
    with socket.socket(fileno=int(sys.argv[1])) as connection, connection.makefile("w", encoding="utf-8") as stream:
        print(json.dumps(_look(Path(sys.argv[2]))), file=stream, flush=True)
