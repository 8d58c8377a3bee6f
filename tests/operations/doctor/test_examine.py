"""Running the checks: side by side, in bounded time, whatever they do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Event

import pytest
from pydantic import ValidationError

from gkd_core.errors import PlatformError
from gkd_core.operations.doctor import Finding, Machine, examine
from gkd_core.operations.doctor.finding import well

GKD = [sys.executable, "-c", "from gkd_core.cli import main; main()"]


def test_one_that_hangs_is_a_finding_and_the_others_are_kept_in_order(good: Machine) -> None:
    release = Event()

    def hangs(machine: Machine) -> Iterable[Finding]:
        release.wait(60)
        return []

    def quick(machine: Machine) -> Iterable[Finding]:
        yield well("quick", "here")

    started = time.monotonic()
    findings = examine(good, {"first": quick, "slow": hangs, "last": quick}, seconds=0.5)
    assert time.monotonic() - started < 10
    release.set()
    assert [(f.subject, f.level) for f in findings] == [("quick", "ok"), ("slow", "error"), ("quick", "ok")]
    assert findings[1].found == "no answer within 0 s"


def test_checks_run_side_by_side(good: Machine) -> None:
    meet = [Event(), Event()]

    def one(machine: Machine) -> Iterable[Finding]:
        meet[0].set()
        yield well("one", str(meet[1].wait(20)))

    def other(machine: Machine) -> Iterable[Finding]:
        meet[1].set()
        yield well("other", str(meet[0].wait(20)))

    assert [finding.found for finding in examine(good, {"one": one, "other": other})] == ["True", "True"]


def test_an_error_of_ours_and_a_missing_package_become_findings(good: Machine) -> None:
    def refused(machine: Machine) -> Iterable[Finding]:
        raise PlatformError("it refuses; ask somebody")

    def absent(machine: Machine) -> Iterable[Finding]:
        raise ModuleNotFoundError("No module named 'boto3'", name="boto3")

    first, second = examine(good, {"a": refused, "b": absent})
    assert (first.level, first.found) == ("error", "it refuses; ask somebody")
    assert (second.level, second.found) == ("warning", "not looked at: boto3 is not installed")


def test_a_finding_that_asks_for_something_says_what() -> None:
    with pytest.raises(ValidationError, match="has advice"):
        Finding(subject="x", level="error", found="bad", advice="")
    with pytest.raises(ValidationError, match="has advice"):
        Finding(subject="x", level="ok", found="good", advice="do something")


def test_the_command_gives_json_and_its_exit_status_follows_the_findings(tmp_path: Path) -> None:
    command = [*GKD, "doctor", "--profile", "demo", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    findings = [Finding.model_validate(item) for item in json.loads(done.stdout)]
    assert {finding.subject for finding in findings} >= {"Python", "MLflow store", "CPUs", "GPUs", "clock"}
    assert done.returncode == int(any(finding.level == "error" for finding in findings))
    assert done.stderr == ""
