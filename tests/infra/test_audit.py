"""The audit by a folder of advisories: a hit fails it, a clean run passes, and what could not be looked at passes never."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "infra" / "audit.py"
PYTHON = REPOSITORY / ".venv-audit" / "bin" / "python"
HASH = "--hash=sha256:" + "0" * 64
# A proxy that nobody listens at: no audit of these tests gets further than loopback.
OFFLINE = {**os.environ, **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")}

needs_pip_audit = pytest.mark.skipif(not PYTHON.exists(), reason="make test installs pip-audit into .venv-audit")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module
    spec.loader.exec_module(module)
    return module


def advisory(name: str = "Some.Package", events: Any = None, **more: Any) -> dict[str, Any]:
    affected: dict[str, Any] = {"package": {"name": name, "ecosystem": "PyPI"}}
    if events is not None:
        affected["ranges"] = [{"type": "ECOSYSTEM", "events": events}]
    affected.update({key: more.pop(key) for key in ("versions", "ranges") if key in more})
    return {"id": "PYSEC-2026-1", "summary": "made up", "affected": [affected], **more}


def folder_of(folder: Path, *advisories: dict[str, Any]) -> Path:
    place = folder / "advisories" / "PyPI"
    place.mkdir(parents=True)
    for number, each in enumerate(advisories):
        (place / f"{number}.json").write_text(json.dumps(each), encoding="utf-8")
    return folder / "advisories"


def run(folder: Path, *pins: str, advisories: Path | None = None) -> subprocess.CompletedProcess[str]:
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{pin} \\\n    {HASH}\n" for pin in pins), encoding="utf-8")
    command = [str(PYTHON), str(SCRIPT), *(["--advisories", str(advisories)] if advisories else []), str(requirements)]
    return subprocess.run(command, env=OFFLINE, capture_output=True, text=True, timeout=120, check=False)


@needs_pip_audit
def test_a_package_with_an_advisory_fails_the_audit(tmp_path: Path) -> None:
    place = folder_of(tmp_path, advisory(events=[{"introduced": "0"}, {"fixed": "1.5"}]))
    done = run(tmp_path, "some-package==1.4", "other==2.0", advisories=place)
    assert done.returncode == 1, done.stderr
    assert "PYSEC-2026-1" in done.stdout
    assert "1.5" in done.stdout
    assert "other" not in done.stdout


@needs_pip_audit
def test_packages_without_an_advisory_pass(tmp_path: Path) -> None:
    place = folder_of(tmp_path, advisory(events=[{"introduced": "0"}, {"fixed": "1.5"}]))
    done = run(tmp_path, "some-package==1.5", "other==2.0", advisories=place)
    assert done.returncode == 0, done.stderr
    assert "No known vulnerabilities found" in done.stderr


@needs_pip_audit
@pytest.mark.parametrize("home", [None, "/dev/null/home"])
def test_without_network_and_folder_it_says_so_in_one_line(
    tmp_path: Path, home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if home is not None:
        monkeypatch.setitem(OFFLINE, "HOME", home)
    done = run(tmp_path, "some-package==1.5")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "no audit: the advisory service cannot be reached; without network give ADVISORIES=folder (OSV files)"
    ]


def test_the_makefile_hands_everything_that_is_pinned_to_the_audit() -> None:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "infra/audit.py $(if $(ADVISORIES),--advisories" in text
    assert "requirements.txt requirements-*.txt\n" in text
    assert '"--strict"' in SCRIPT.read_text(encoding="utf-8")  # what cannot be looked up is not without vulnerabilities


@pytest.mark.parametrize(
    ("given", "version", "hit"),
    [
        (advisory(events=[{"introduced": "1.0"}, {"fixed": "1.5"}]), "0.9", False),
        (advisory(events=[{"introduced": "1.0"}, {"fixed": "1.5"}]), "1.0", True),
        (advisory(events=[{"introduced": "1.0"}, {"fixed": "1.5"}]), "1.5rc1", True),
        (advisory(events=[{"introduced": "0"}]), "99", True),
        (advisory(events=[{"introduced": "0"}, {"last_affected": "2.0"}]), "2.0", True),
        (advisory(events=[{"introduced": "0"}, {"last_affected": "2.0"}]), "2.0.1", False),
        (advisory(events=[{"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "2.0"}, {"fixed": "2.1"}]), "1.5", False),
        (advisory(events=[{"fixed": "2.1"}, {"introduced": "2.0"}, {"fixed": "1.0"}, {"introduced": "0"}]), "2.0.5", True),
        (advisory(versions=["1.0", "2004d-old"]), "1.0.0", True),
        (advisory(versions=["1.0", "2004d-old"]), "1.1", False),
        (advisory(), "1.0", True),
        (advisory(events=[{"introduced": "no version"}]), "1.0", True),
        (advisory("another", events=[{"introduced": "0"}]), "1.0", False),
    ],
)
def test_which_versions_an_advisory_is_about(tmp_path: Path, given: dict[str, Any], version: str, hit: bool) -> None:
    known = load().Advisories(folder_of(tmp_path, given))
    found = known.about("some-package", version)
    assert bool(found) is hit
    assert all(part["package"]["name"] == "some-package" for each in found for part in each["affected"])


def empty(folder: Path) -> None:
    for file in folder.rglob("*.json"):
        file.unlink()


def half(folder: Path) -> None:
    (folder / "PyPI" / "9.json").write_text('{"id": "PYSEC-2026-2", "affec', encoding="utf-8")


def elsewhere(folder: Path) -> None:
    empty(folder)
    other = {"id": "GO-1", "affected": [{"package": {"name": "some-package", "ecosystem": "Go"}}]}
    (folder / "PyPI" / "9.json").write_text(json.dumps(other), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"), [(empty, "no \\*.json in it"), (half, "no OSV advisory"), (elsewhere, "none is about")]
)
def test_a_folder_that_says_nothing_is_refused(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    place, module = folder_of(tmp_path, advisory()), load()
    spoil(place)
    with pytest.raises(module.AuditError, match=message):
        module.Advisories(place)
