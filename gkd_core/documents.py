"""YAML and JSON from outside: plain data, bounded in size, depth and expansion, no key twice, errors with file and line.

Scalars of YAML are those of its version 1.2 (the core schema), as for DVC, which reads the same files: PyYAML's own rules are
version 1.1's, by which `010` is 8, `1:30` is 90, `no` is false, and `5e-5` is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

from gkd_core.messages import one_line, shown

LARGEST = 4 * 2**20  # bytes of a document; the reader of YAML takes seconds for more
DEEPEST = 64  # groups within groups
MOST_NODES = 200_000  # values, each counted as often as aliases repeat it
LONGEST_NUMBER = 400  # characters: the largest float has 309 digits, and Python needs quadratic time to read an integer
LONGEST_ERROR = 300
# No file can be called so, and no UTF-8 holds the first: refused here, as what is read ends in paths and files elsewhere.
ODD = re.compile("[\\ud800-\\udfff\\0]")
OTHER_LINE_BREAKS = re.compile("[\x85\u2028\u2029]")
ODD_ESCAPE = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")


class DocumentError(ValueError):
    """Text is no YAML or JSON that we read. The message is one line and says where in the text."""


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which refuses what would grow without bound, and a key that is given twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0  # so far, aliases expanded
        self._sizes: dict[Node, int] = {}
        self._flat: set[Node] = set()

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if node not in self._sizes:
                raise ConstructorError(None, None, "an alias of the group that contains it", mark)
            self._count(self._sizes[node], mark)
            return node
        self._depth += 1
        if self._depth > DEEPEST:
            raise ConstructorError(None, None, f"more than {DEEPEST} groups within each other", mark)
        before = self._nodes
        self._count(1, mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None:
            self._sizes[node] = self._nodes - before
        return node

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803  # PyYAML's name
        # Before the first value is composed the scanner looks a thousand brackets ahead, at all those before for each of them.
        if self.flow_level >= DEEPEST:
            raise ConstructorError(None, None, f"more than {DEEPEST} groups within each other", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def _count(self, nodes: int, mark: yaml.Mark) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise ConstructorError(None, None, f"more than {MOST_NODES} values, with what aliases repeat", mark)

    def flatten_mapping(self, node: MappingNode) -> None:
        # Looked at before `<<` is filled in: what it brings, the group's own keys may override. A group that two names share
        # comes by twice, the second time filled in.
        if node in self._flat:
            return
        self._flat.add(node)
        seen: dict[object, Node] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                continue  # refused later, as no key can be a list or a group
            name = (key.tag, key.value) if key.tag == "tag:yaml.org,2002:merge" else self.construct_object(key)
            if name in seen:
                line = seen[name].start_mark.line + 1
                raise ConstructorError(None, None, f"'{key.value}' stands here a second time, after line {line}", key.start_mark)
            seen[name] = key
        super().flatten_mapping(node)

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            if isinstance(node, ScalarNode):
                _check_text(node.value)
            if isinstance(node, ScalarNode) and node.tag.endswith((":int", ":float")) and len(node.value) > LONGEST_NUMBER:
                raise ValueError(f"a number of {len(node.value)} characters")
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:  # a tag that the text does not fit
            raise ConstructorError(None, None, f"not a value ({error})", node.start_mark) from None


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper, which also quotes the texts that version 1.2 takes for numbers and escapes unusual line breaks."""

    def represent_str(self, text: str) -> ScalarNode:
        # Left bare they come back as `\n` or a blank: the two versions of YAML differ in what ends a line.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if OTHER_LINE_BREAKS.search(text) else None)


_Dumper.add_representer(str, _Dumper.represent_str)


INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
CORE_SCHEMA = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    INT: (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    FLOAT: (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "tag:yaml.org,2002:merge": (r"<<", ["<"]),  # of version 1.1, and widely used
}


def _int(loader: _Loader, node: ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(loader: _Loader, node: ScalarNode) -> float:
    return float(re.sub(r"\.(inf|nan)$", r"\1", loader.construct_scalar(node).lower()))


_Loader.yaml_implicit_resolvers = {}
for tag, (pattern, first) in CORE_SCHEMA.items():
    for kind in (_Loader, _Dumper):
        kind.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})\Z"), first)
_Loader.add_constructor(INT, _int)
_Loader.add_constructor(FLOAT, _float)


def dump_yaml(tree: object, width: int = 120) -> str:
    """Plain data as a YAML document that `parse_yaml`, and readers of YAML 1.1, read back as it was; keys in their order."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)
    return text


def parse_yaml(text: str) -> Any:
    """The plain data of a YAML document: groups, lists, texts, numbers, dates.

    Raises:
        DocumentError: it is not valid YAML, names an object, has a key twice, or is too large, deep or repetitive.
    """
    _check_size(len(text))
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = ", ".join(word for word in (error.context, error.problem) if word)
        place = "" if mark is None else f"line {mark.line + 1}: "
        raise DocumentError(f"{place}{one_line(words, LONGEST_ERROR)}") from None
    except yaml.YAMLError as error:
        raise DocumentError(one_line(error, LONGEST_ERROR)) from None


def read_yaml(path: Path) -> Any:
    """As `parse_yaml`, of a file.

    Raises:
        DocumentError: as there, or the file is not UTF-8.
        OSError: the file cannot be read.
    """
    return parse_yaml(read_text(path))


def parse_json(text: str | bytes, largest: int = LARGEST) -> Any:
    """The plain data of a JSON document. Numbers that are none (NaN, Infinity) and a key that is given twice are refused.

    Raises:
        DocumentError: it is not valid JSON, or too large or deep.
    """
    _check_size(len(text), largest)
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))  # by itself, json lets half characters pass
        tree = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        if ODD.search(text) or ODD_ESCAPE.search(text):
            _check_texts(tree)
        return tree
    except RecursionError:
        raise DocumentError("too many groups within each other") from None
    except ValueError as error:  # of json, of a number with too many digits, of bytes that are no text
        raise DocumentError(one_line(error, LONGEST_ERROR)) from None


def read_text(path: Path, largest: int = LARGEST) -> str:
    """The text of a file that is read whole.

    Raises:
        DocumentError: it is not UTF-8, is no regular file (a pipe would be waited for without end), or is too large.
        OSError: the file cannot be read.
    """
    content = read_small(path, largest)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DocumentError(f"line {line}: not UTF-8 (byte 0x{content[error.start]:02x}); save it as UTF-8") from None


def read_small(path: Path, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file of bounded size; raises as `read_text`."""
    if path.exists() and not path.is_file():
        raise DocumentError(f"{'a folder' if path.is_dir() else 'a pipe, socket or device'} and no file")
    with path.open("rb") as stream:
        content = stream.read(largest + 1)
    _check_size(len(content), largest)
    return content


def _check_size(size: int, largest: int = LARGEST) -> None:
    if size > largest:
        raise DocumentError(f"more than {largest} bytes")


def _check_text(text: str) -> None:
    if ODD.search(text):
        raise ValueError("text with half a character (a lone surrogate) or a zero byte")


def _check_texts(tree: Any) -> None:
    below = [tree]
    while below:
        value = below.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, dict | list):
            below += [*value, *value.values()] if isinstance(value, dict) else value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if key in tree:
            raise ValueError(f"'{shown(key, 60)}' is given twice")
        tree[key] = value
    return tree


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
