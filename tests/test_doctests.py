"""Examples in docstrings, where a formula is the point: they are what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for path in sorted((ROOT / "gkd_core").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_examples_hold(file: Path) -> None:
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried.attempted > 0 and tried.failed == 0
