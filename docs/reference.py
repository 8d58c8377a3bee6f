"""The reference pages, from the program itself: `python docs/reference.py` writes them, and a test holds them to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from gkd_core.cli.app import app
from gkd_core.settings import Settings

FOLDER = Path(__file__).parent / "reference"
BOUNDS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}", "pattern": "`{}`"}
WRITTEN = "<!-- Written by docs/reference.py from the program: do not edit. -->\n"
Schema = dict[str, Any]


def main() -> None:
    """Write both pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text of each page, by file name."""
    return {"settings.md": settings_page(), "commands.md": commands_page()}


def settings_page() -> str:
    """Every key of `params.yaml`: default, what it takes, meaning."""
    schema = Settings.model_json_schema()
    head = "Every key of `params.yaml`, with the default of one that is left out. `gkd settings --profile NAME` prints them all\n"
    head += "as one profile has them; `--set a.b=value` changes one. An unknown key is an error.\n"
    return f"# Settings\n\n{WRITTEN}\n{head}" + "".join(_section("", schema, schema["$defs"], Settings().model_dump(mode="json")))


def _section(prefix: str, section: Schema, known: Schema, defaults: Any) -> Iterator[str]:
    """The table of a section, then those of the sections in it."""
    rows, deeper = [], []
    for key, field in section["properties"].items():
        inner = _group(field, known)
        default = defaults.get(key) if isinstance(defaults, dict) else None
        if inner is not None:
            deeper.append((f"{prefix}{key}.", inner, default))
        shown = "a section" if inner is not None else f"`{json.dumps(default, ensure_ascii=False)}`"
        rows.append(f"| `{prefix}{key}` | {shown} | {_cell(_takes(field, known))} | {_cell(field.get('description', ''))} |\n")
    title = prefix.removesuffix(".") or "The whole"
    yield f"\n## {title}\n\n| key | default | takes | meaning |\n|---|---|---|---|\n" + "".join(rows)
    for name, inner, default in deeper:
        yield from _section(name, inner, known, default)


def _group(field: Schema, known: Schema) -> Schema | None:
    """The section that a field holds, where it holds one."""
    for option in (field, *field.get("anyOf", ()), *field.get("allOf", ())):
        if "$ref" in option and "properties" in (target := known[option["$ref"].rpartition("/")[2]]):
            return dict(target)
    return None


def _takes(field: Schema, known: Schema) -> str:
    """What values a field takes, in words."""
    if "$ref" in field:
        return _takes(known[field["$ref"].rpartition("/")[2]], known)
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_takes(option, known) for option in field["anyOf"]))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    bounds = ", ".join(text.format(field[name]) for name, text in BOUNDS.items() if name in field)
    kind = field.get("type", "anything")
    if kind == "array":
        items = field.get("prefixItems") or ([field["items"]] if field.get("items") else [])
        kind = f"a list of {', '.join(_takes(item, known) for item in items) or 'anything'}"
    elif kind == "object":
        kind = "a group of keys" if "properties" in field else "names with values"
    return f"{kind} {bounds}".strip()


def commands_page() -> str:
    """Every command of `gkd`, with its arguments and options."""
    head = "Every command of `gkd`; `gkd COMMAND --help` says the same in the terminal.\n"
    return f"# Commands\n\n{WRITTEN}\n{head}" + "".join(_commands("gkd", typer.main.get_command(app)))


def _commands(path: str, command: Any) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is not None:
        for name in sorted(inner):
            yield from _commands(f"{path} {name}", inner[name])
        return
    context = typer.Context(command, info_name=path)
    example = f"\n```sh\n{command.epilog.removeprefix('Example: ')}\n```\n" if command.epilog else ""
    rows = [record for parameter in command.params if (record := parameter.get_help_record(context)) is not None]
    table = "".join(f"| `{_cell(name)}` | {_cell(text)} |\n" for name, text in rows)
    table = f"\n| argument or option | |\n|---|---|\n{table}" if table else ""
    yield f"\n## {path}\n\n{command.help or ''}\n{example}{table}"


def _cell(text: str) -> str:
    """Text as a cell of a table may hold it."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
