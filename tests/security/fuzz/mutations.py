"""Inputs made from good ones, the same each time: cut, flipped, spliced, with odd values put in, as bytes and as trees."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from tests.security.fuzz.harness import Target

LARGEST_TREE = 4096  # bytes of a seed that is changed as a tree
DEEPEST = 20  # groups within groups that are looked into
LARGEST = 16 * 1024  # bytes of an input
NUMBERS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**63, 2**70, -(2**70), 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), "", " ", ".", "..",
    "../../outside", "/etc/passwd", "a\x00b", "a\nb", "\x1b[2J", "\ud800", "é" * 300, "x" * 5000, "${HOME}", "{{7*7}}", "`id`",
    [], {}, [[]], {"": None}, [None], [0] * 300, "0" * 64, "2001-99-99", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00",
)  # fmt: skip
TOKENS = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b"\r", b"\x1b[2J", b"{", b"}", b"[", b"]" * 8, b"[" * 4000,
    b'{"a":' * 2000, b'{"a":' * 900 + b"1" + b"}" * 900, b"- " * 300, b"&a [*a]", b"<<: ", b"!!python/object/apply:os.system",
    b"!!binary ", b"? ", b"%YAML 9.9\n", b"\\ud800", b"NaN", b"Infinity", b"1e999", b"-", b"9" * 500, b"..", b"../", b"/",
    b"PK\x03\x04", b"\x80\x02", b"R", b"cos\nsystem\n", b"ustar",
)  # fmt: skip


def mutated(target: Target, seeds: Sequence[bytes], number: int) -> bytes:
    """The mutation of this number of a target's seeds."""
    return mutation(target, seeds, random.Random(f"{target.name} {number}"))


def mutation(target: Target, seeds: Sequence[bytes], draw: random.Random) -> bytes:
    """One of the seeds, changed in a few ways."""
    content = draw.choice(seeds)
    if target.form is not None and len(content) < LARGEST_TREE and draw.random() < 0.6:
        tree = _tree_of(content, target.form)
        if tree is not None:
            for _ in range(draw.choice((1, 1, 1, 2, 4))):
                tree = _odd_tree(tree, draw)
            return json.dumps(tree, ensure_ascii=draw.random() < 0.7).encode("utf-8", "surrogatepass")[:LARGEST]
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        content = draw.choice(BYTES)(content, seeds, draw)[:LARGEST]
    return content


def _tree_of(content: bytes, form: str) -> Any:
    try:
        tree = json.loads(content) if form == "json" else yaml.safe_load(content)
        # Keys become text: a number as a key is not JSON, and YAML reads it back from its quotes as text.
        return json.loads(json.dumps(tree))
    except (ValueError, TypeError, AttributeError, LookupError, yaml.YAMLError, RecursionError):
        return None  # a seed that is not of its form, such as a past fault: changed as bytes


def _odd_tree(tree: Any, draw: random.Random) -> Any:
    """A copy of a tree with one place in it changed."""
    places = list(_places(tree))
    if not places:
        return draw.choice(ODD)
    path = draw.choice(places)
    copy = json.loads(json.dumps(tree))
    node = copy
    for key in path[:-1]:
        node = node[key]
    last = path[-1]
    way = draw.random()
    if way < 0.6:
        node[last] = draw.choice(ODD)
    elif way < 0.7:
        del node[last]
    elif way < 0.8:
        other = tree
        for key in draw.choice(places):
            other = other[key]
        node[last] = other
    elif isinstance(node, dict):
        node[str(draw.choice(ODD))[:300]] = node.pop(last) if way < 0.9 else draw.choice(ODD)
    else:
        node.append(draw.choice(ODD))
    return copy


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Any:
    if len(path) == DEEPEST:
        return
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


def _cut(content: bytes, seeds: Sequence[bytes], draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _flip(content: bytes, seeds: Sequence[bytes], draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 4, 16)) if changed else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _splice(content: bytes, seeds: Sequence[bytes], draw: random.Random) -> bytes:
    other = draw.choice(seeds)
    return content[: draw.randrange(len(content) + 1)] + other[draw.randrange(len(other) + 1) :]


def _drop(content: bytes, seeds: Sequence[bytes], draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start + draw.randrange(1, 64) :]


def _repeat(content: bytes, seeds: Sequence[bytes], draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start : start + draw.randrange(1, 64)] * draw.choice((2, 3, 100)) + content[start:]


def _put_token(content: bytes, seeds: Sequence[bytes], draw: random.Random) -> bytes:
    start, token = draw.randrange(len(content) + 1), draw.choice(TOKENS)
    return content[:start] + token + content[start + draw.choice((0, len(token))) :]


def _put_number(content: bytes, seeds: Sequence[bytes], draw: random.Random) -> bytes:
    size, end = draw.choice((1, 2, 4, 8)), draw.choice("<>")
    number = draw.choice(NUMBERS) % 2 ** (8 * size)
    packed = struct.pack(end + {1: "B", 2: "H", 4: "I", 8: "Q"}[size], number)
    start = draw.randrange(len(content) + 1)
    return content[:start] + packed + content[start + size :]


BYTES: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _cut, _flip, _flip, _flip, _splice, _drop, _repeat, _put_token, _put_token, _put_number,
)  # fmt: skip
