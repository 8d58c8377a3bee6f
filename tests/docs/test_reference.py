"""The reference pages say what the program says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

from gkd_core.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"


def _reference() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[str, str] = module.pages()
    return pages


@pytest.mark.parametrize("name", ["settings.md", "commands.md"])
def test_the_reference_is_the_programs_own(name: str) -> None:
    assert (DOCS / "reference" / name).read_text(encoding="utf-8") == _reference()[name], "run: python docs/reference.py"


def test_every_setting_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")

    def keys(tree: object, prefix: str = "") -> list[str]:
        if not isinstance(tree, dict):
            return [prefix.removesuffix(".")]
        return [key for name, inner in tree.items() for key in keys(inner, f"{prefix}{name}.")] or [prefix.removesuffix(".")]

    lacking = [key for key in keys(Settings().model_dump(mode="json")) if f"`{key}`" not in page]
    assert lacking == []


def test_every_page_is_in_the_navigation() -> None:
    """What `make docs` refuses, said where it needs nothing installed."""
    lines = (DOCS / "mkdocs.yml").read_text(encoding="utf-8")
    nav = yaml.safe_load(lines[lines.index("\nnav:") :])["nav"]
    listed = {path for group in nav for pages in group.values() for page in pages for path in page.values()}
    assert listed >= {f"docs/{path.relative_to(DOCS).as_posix()}" for path in DOCS.rglob("*.md")}
    assert [path for path in listed if not (DOCS.parent / path).is_file()] == []
