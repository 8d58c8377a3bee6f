"""The compiler of the host, to which torch.compile hands the code that it writes."""

from __future__ import annotations

import os
import shlex
import shutil
import sys

from gkd_core.errors import SettingsError


def check_compiler(device: str) -> None:
    """Raise `SettingsError` where `compile: true` could but fail, minutes later and in a page of torch's own words."""
    if device.startswith("cuda"):  # Triton's order, which compiles its launchers in C
        variable, names = "CC", ["gcc", "clang"]
    else:
        variable, names = "CXX", ["clang++" if sys.platform == "darwin" else "g++"]
    chosen = shlex.split(os.environ.get(variable, ""))[:1]
    if not any(map(shutil.which, chosen or names)):
        raise SettingsError(
            f"compile: torch.compile for {device} needs a compiler, and this host has no {' or '.join(chosen or names)}; "
            f"set compile: false, or install one ({variable} names another)"
        )
