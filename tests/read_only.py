"""A machine with a folder that cannot be written, as in a container with a read-only root, or one with mounted secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

UNSHARE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
EMPTY = 'mount -t tmpfs -o ro none "$0" && exec "$@"'
AS_IT_IS = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
VAR_TMP = Path("/var/tmp")


def run_with_read_only_var_tmp(program: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python program where /var/tmp is an empty, read-only file system."""
    return _run(EMPTY, VAR_TMP, program, arguments, folder)


def run_with_read_only(mounted: Path, program: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python program where a folder, as it is, is in a read-only mount."""
    return _run(AS_IT_IS, mounted, program, arguments, folder)


def _run(mount: str, place: Path, program: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Skips where only root may mount, or nobody may, as in a container."""
    probe = subprocess.run([*UNSHARE, mount, str(place), "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"needs a mount namespace of its own, which is root's: {probe.stderr.strip()}")
    return subprocess.run(
        [*UNSHARE, mount, str(place), sys.executable, "-c", program, *arguments],
        cwd=folder, env={name: value for name, value in os.environ.items() if name != "DVC_SITE_CACHE_DIR"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
