"""The alert rules: their form, that every link leads somewhere, and by Prometheus' own tool where it is installed.

That their metrics are really exposed: tests/integration/test_monitoring.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "infra" / "monitoring"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_says_what_is_wrong_and_where_the_runbook_has_it() -> None:
    runbook = (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8")
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", runbook, re.MULTILINE)}
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/runbook.md" and anchor in anchors, rule["annotations"]["runbook"]
        assert rule["annotations"]["summary"]


def test_every_alert_is_in_the_docs() -> None:
    text = (REPOSITORY / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert not [rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in text]


@pytest.mark.parametrize(("what", "file"), [("rules", "alerts.yaml"), ("config", "prometheus.yaml")])
def test_prometheus_takes_them(what: str, file: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    done = subprocess.run(["promtool", "check", what, file], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
