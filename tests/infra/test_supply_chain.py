"""The bill of materials names what is pinned, and the audit is one that cannot pass unseen."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def recipe(target: str) -> list[str]:
    """The last command of a target of the Makefile."""
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    match = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert match is not None
    return shlex.split(match[1].strip().splitlines()[-1])


def test_the_bill_of_materials_names_every_pinned_package_and_is_the_same_each_time(tmp_path: Path) -> None:
    if importlib.util.find_spec("cyclonedx_py") is None:
        pytest.skip("cyclonedx-bom is not installed")
    command = recipe("sbom")
    assert command[0] == "$(BIN)/cyclonedx-py"
    command = [sys.executable, "-m", "cyclonedx_py", *command[1:]]
    command[command.index("--output-file") + 1] = str(tmp_path / "sbom.json")
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    bill = json.loads((tmp_path / "sbom.json").read_text())
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    assert {(item["name"], item["version"]) for item in bill["components"]} == set(pins)
    assert len(pins) > 200
    assert bill["metadata"]["component"]["name"] == "gkd"
    assert "timestamp" not in bill["metadata"]


@pytest.mark.parametrize("name", [f"requirements{group}.txt" for group in ("", "-uv", "-fuzz", "-audit", "-docs")])
def test_every_pin_has_the_digests_of_its_files_and_no_address(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (REPOSITORY / name).read_text(encoding="utf-8").strip())
    assert len(entries) > (300 if name == "requirements.txt" else 0)
    whole = re.compile(r"\S+==\S+.*\\\n(\s+--hash=sha256:[0-9a-f]{64}(\s\\)?\n?)+$")
    lacking = [entry.split()[0] for entry in entries if not whole.match(entry)]
    assert lacking == []
    assert not any("://" in entry for entry in entries)


def test_the_makefile_installs_nothing_whose_digest_is_not_known() -> None:
    lines = [line for line in (REPOSITORY / "Makefile").read_text(encoding="utf-8").splitlines() if "pip install" in line]
    assert len(lines) >= 3
    for line in lines:
        # Our own package comes from the checkout, and what builds it from the list.
        assert "--require-hashes" in line or "--no-deps --no-build-isolation --editable ." in line, line
