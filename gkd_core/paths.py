"""Names of folders and files that several packages share. Folders are relative to the workspace, which holds `params.yaml`."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
ARTIFACTS = Path("artifacts")
DATA = ARTIFACTS / "data"
RUNS = ARTIFACTS / "runs"  # checkpoints and step metrics of unfinished work; not an output
REPORT = ARTIFACTS / "report"
SCORES = "scores.json"
PICTURES = "pictures.json"
SIZE = "student.json"  # in the run folder of `evaluate`: what the student takes
