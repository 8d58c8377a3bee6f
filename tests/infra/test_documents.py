"""infra/README.md and the pages for whoever runs it: each command says whether a test runs it, and names what is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from gkd_core.settings import settings_from_tree

REPOSITORY = Path(__file__).parents[2]
PAGES = (
    "infra/README.md", "docs/security.md", "docs/backup.md", "docs/monitoring.md", "docs/runbook.md", "docs/upgrading.md",
)  # fmt: skip


def commands(page: str) -> list[str]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines() if line]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_run_by_a_test_that_is_there_or_says_why_not(page: str) -> None:
    for line in commands(page):
        run = re.search(r"# ✔ (tests/[\w/.]+?)(?=[ ,:;]|$)", line)
        assert run or re.search(r"✘ \w", line), line
        if run:
            assert (REPOSITORY / run[1]).exists(), line


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_that_are_named_are_there(page: str) -> None:
    path = REPOSITORY / page
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (path.parent / target).exists(), target
    for name in re.findall(r"`(tests/[\w/.]+\.py)`", text):
        assert (REPOSITORY / name).exists(), name


def test_the_settings_of_a_cluster_fit_the_schema() -> None:
    text = (REPOSITORY / "infra/README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    tree = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    for section, changes in yaml.safe_load(block).items():
        tree[section] |= changes
    settings = settings_from_tree(tree)
    assert settings.compute.elsewhere and settings.data.shards


def test_the_table_of_secrets_names_those_that_are_made(tmp_path: Path) -> None:
    scripts = REPOSITORY / "infra"
    subprocess.run([scripts / "secrets.sh", tmp_path / "secrets"], check=True, capture_output=True)
    made = subprocess.run([scripts / "kubernetes/secrets.sh", tmp_path / "secrets"], check=True, capture_output=True, text=True)
    text = (scripts / "README.md").read_text(encoding="utf-8")
    rows = text[text.index("| Secret | keys") :].split("\n\n")[0].splitlines()[2:]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert named == {item["metadata"]["name"] for item in yaml.safe_load_all(made.stdout)} | {"gkd"}  # that one is KubeRay's
