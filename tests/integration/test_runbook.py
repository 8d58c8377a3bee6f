"""The commands of docs/runbook.md and docs/upgrading.md that are said to be run here, as they stand, against a real server."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import REPOSITORY, Prefect

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

HERE = Path(__file__).relative_to(REPOSITORY).as_posix()
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")


def block(page: str) -> list[str]:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    return [line for part in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in part.splitlines() if line]


def command(line: str) -> str:
    return line.partition("#")[0].strip()


def ours(page: str) -> list[str]:
    return [command(line) for line in block(page) if f"✔ {HERE}" in line]


@pytest.fixture(scope="module")
def pool(prefect: Prefect) -> Prefect:
    """A server that knows the deployments, and no worker."""
    for arguments in (("work-pool", "create", "gkd", "--type", "process"), ("--no-prompt", "deploy", "--all")):
        done = prefect(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return prefect


def answer(prefect: Prefect, line: str, **words: str) -> str:
    """What a command of the page says, words put in for its placeholders."""
    program, *arguments = PLACEHOLDER.sub(lambda match: words[match[0]], line).split()
    assert program == "prefect"
    done = prefect(*arguments)
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout


def test_all_commands_that_only_look_answer(pool: Prefect) -> None:
    looking = [line for line in ours("runbook.md") if line.startswith("prefect") and not PLACEHOLDER.search(line)]
    assert len(looking) >= 6
    for line in looking:
        answer(pool, line)
    (free,) = [line for line in ours("runbook.md") if line.startswith("df ")]
    assert "Filesystem" in subprocess.run(free.split(), capture_output=True, text=True, check=True).stdout


def test_a_schedule_that_somebody_paused_fires_again(pool: Prefect) -> None:
    (look,) = [line for line in ours("runbook.md") if "schedule ls" in line]
    (resume,) = [line for line in ours("runbook.md") if "schedule resume" in line]
    (schedule,) = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", answer(pool, look))
    assert pool("deployment", "schedule", "pause", "gkd/redistill", schedule).returncode == 0
    assert "False" in answer(pool, look)
    answer(pool, resume, SCHEDULE=schedule)
    assert "True" in answer(pool, look)


def test_a_slot_that_was_not_given_back_is_freed(pool: Prefect) -> None:
    (free,) = [line for line in ours("runbook.md") if "--active-slots" in line]

    def limits() -> dict[str, int]:
        found = json.loads(pool("global-concurrency-limit", "ls", "--output", "json").stdout)
        return {limit["name"]: limit["active_slots"] for limit in found}

    name = next(name for name in limits() if name.startswith("deployment:"))
    assert pool("global-concurrency-limit", "update", name, "--active-slots", "1").returncode == 0
    assert limits()[name] == 1
    answer(pool, free, LIMIT=name)
    assert limits()[name] == 0


def test_the_pool_is_paused_for_an_upgrade_and_resumed_after_it(pool: Prefect) -> None:
    assert pool("work-pool", "pause", "gkd").returncode == 0
    assert "is_paused=True" in re.sub(r"\s", "", pool("work-pool", "inspect", "gkd").stdout)
    (resume,) = [line for line in ours("upgrading.md") if "resume" in line]
    answer(pool, resume)
    assert "is_paused=True" not in re.sub(r"\s", "", pool("work-pool", "inspect", "gkd").stdout)


def test_every_command_of_the_tables_is_one_of_the_list() -> None:
    text = (REPOSITORY / "docs/runbook.md").read_text(encoding="utf-8")
    known = {command(line) for line in block("runbook.md")}
    rows = [row.split("|") for row in text.splitlines() if row.startswith("| ") and "make sure" not in row]
    assert len(rows) > 40
    used = [
        word
        for row in rows
        for word in re.findall(r"`((?:prefect|gkd|make|kubectl|dvc|ray|nvidia-smi|df|pg_isready) [^`]+)`", row[2])
    ]
    unknown = {word for word in used if word not in known}
    assert not unknown


def test_pages_refer_to_each_other_and_to_headings_that_are_there() -> None:
    for page in ("runbook.md", "upgrading.md", "backup.md", "monitoring.md", "operation.md", "platform.md"):
        text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (REPOSITORY / "docs" / target).exists(), f"{page}: {target}"
