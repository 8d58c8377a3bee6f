"""YAML and JSON that would grow, recurse, name objects or say a thing twice: refused in one line, in bounded time and memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gkd_core.data.catalog.load import load_catalog
from gkd_core.documents import DEEPEST, LARGEST, LONGEST_NUMBER, MOST_NODES, DocumentError, parse_json, parse_yaml
from gkd_core.errors import GkdError
from gkd_core.settings import load_settings

ROOT = Path(__file__).parents[2]
MEMORY = 2 * 2**30  # bytes of address space, far less than what any of these would take if it were expanded


def bomb(levels: int, width: int = 10) -> str:
    """A group that aliases repeat `width ** levels` times."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


def merge_bomb(levels: int) -> str:
    lines = ["a0: &a0 {" + ", ".join(f"k{n}: 1" for n in range(50)) + "}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 20)}]}}" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


ATTACKS = {
    "aliases that repeat": bomb(9),
    "keys that repeat": merge_bomb(9),
    "a list in itself": "a: &a [*a]",
    "a group in itself": "a: &a {b: *a}",
    "a group that merges itself": "a: &a {<<: *a}",
    "two that hold each other": "a: &a [&b [*a, *b]]",
    "lists within lists": "[" * 5000 + "]" * 5000,
    "groups within groups": "{a: " * 5000 + "1" + "}" * 5000,
    "blocks within blocks": "\n".join(" " * n + "a:" for n in range(2000)),
    "dashes within dashes": "- " * 5000 + "1",
    "an object of Python": "!!python/object/apply:os.system ['true']",
    "a name of Python": "!!python/name:os.system",
    "a module of Python": "a: !!python/module:os",
    "a tag of somebody's": "a: !own {b: 1}",
    "a number without end": "a: " + "9" * 5_000_000,
    "a long number": "a: " + "9" * (LONGEST_NUMBER + 1),
    "a long float": "a: 0." + "9" * (LONGEST_NUMBER + 1),
    "many values": "[" + "1," * (MOST_NODES + 1) + "]",
    "a large text": "a: '" + "x" * (LARGEST + 1) + "'",
    "a key twice": "a: 1\nb: 2\na: 3\n",
    "a key twice below": "a: {b: 1, b: 2}",
    "a key twice in two spellings": "a: 1\n'a': 2\n",
    "a number twice in two spellings": "1: a\n0x1: b\n",
    "two merges": "a: &a {b: 1}\nc: {<<: *a, <<: *a}\n",
    "a group as a key": "? {a: 1}\n: 2\n",
    "a list as a key": "? [a]\n: 2\n",
    "an alias of nothing": "a: *nowhere",
    "an anchor twice and its alias": "a: &a [*a, &a [*a]]",
    "bad base64": "a: !!binary 'a'",
    "no number by its tag": "a: !!int 'x'",
    "no float by its tag": "a: !!float 'x'",
    "no truth by its tag": "a: !!bool 'x'",
    "no date by its tag": "a: !!timestamp 'x'",
    "a set of groups": "a: !!set [b]",
    "pairs that are none": "a: !!omap [b]",
    "two documents": "a: 1\n---\nb: 2\n",
    "a zero byte": "a: \x00",
    "an escape of a terminal": "a: \x1b[2J",
    "a quote that does not end": "a: 'x",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_would_grow_or_run_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_yaml(ATTACKS[name])
    message = str(refused.value)
    assert message.isprintable() and 0 < len(message) <= 400


@pytest.mark.parametrize("reader", ["settings", "catalog"])
@pytest.mark.parametrize("name", ATTACKS)
def test_the_readers_of_files_name_the_file(tmp_path: Path, name: str, reader: str) -> None:
    file = tmp_path / "given.yaml"
    file.write_text(ATTACKS[name], encoding="utf-8")
    read: dict[str, Any] = {"settings": lambda: load_settings(file), "catalog": lambda: load_catalog([file])}
    with pytest.raises(GkdError) as refused:
        read[reader]()
    assert str(file) in str(refused.value) and str(refused.value).isprintable()


def test_bombs_take_little_memory() -> None:
    """Each in a process whose memory is bounded, where expanding any of them would end in an error of memory."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)\n"
        "from gkd_core.documents import DocumentError, parse_yaml\n"
        "from tests.security.test_yaml import ATTACKS\n"
        "for name, text in ATTACKS.items():\n"
        "    try:\n        parse_yaml(text)\n        sys.exit(name)\n"
        "    except DocumentError:\n        print(name)\n"
    )
    command = [sys.executable, "-c", code, str(MEMORY)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == list(ATTACKS)


def test_what_people_write_is_taken() -> None:
    text = "base: &base {a: 1, b: [x, y]}\nown: {<<: *base, a: 2}\nboth: [*base, *base]\nwhen: '2026-01-02'\n"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)) is not None
    assert parse_yaml(bomb(3)) == yaml.safe_load(bomb(3))


# Zero bytes and halves of characters are refused, as no file can be called so.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
@settings(max_examples=200)
def test_whatever_a_library_writes_is_read_as_it_reads_it(tree: Any) -> None:
    text = yaml.safe_dump(tree, default_style='"')  # by tags and quotes: it leaves `1e3` bare, a text by version 1.1 alone
    assert parse_yaml(text) == yaml.safe_load(text)


@given(st.text(alphabet="ab0:1.-[]{}&*!<>|'\"#,?% \n\t~", max_size=60))
@settings(max_examples=1500)
def test_any_text_is_read_as_the_library_reads_it_or_refused(text: str) -> None:
    try:
        mine = parse_yaml(text)
    except DocumentError as error:
        refusal = str(error)
    else:
        refusal = ""
        # Where version 1.1 has numbers of base 60 and 8, and dates: tests/test_documents.py has these.
        if not re.search(r"\d:\d|0[0-9b]|\d-\d", text):
            assert repr(mine) == repr(yaml.safe_load(text))
    assert refusal.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000, '{"a":' * 200_000, "9" * 5_000_000, "NaN", "[Infinity]", '{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 2}}',
        "", "{", "'a'", '{"a": 01}', "[1,]", b"\xff\xfe", b"\xed\xa0\x80", '"' + "x" * (LARGEST + 1) + '"', "9" * 5000,
    ],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_json_is_bounded_too(text: str | bytes) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_json(text)
    assert str(refused.value).isprintable() and len(str(refused.value)) <= 400
