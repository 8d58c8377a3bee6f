"""What a policy in AWS's language says to a request: IAM's rules for the part of the language that our policies use.

A `Deny` that fits wins, else one `Allow` must fit. Names of condition keys are compared without regard to case; a key that the
request does not have fits no operator but `Null`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

KNOWN = {"Sid", "Effect", "Action", "Resource", "Condition"}
IF_NONE_MATCH = "s3:if-none-match"
CREATES = "s3:ObjectCreationOperation"


@dataclass(frozen=True)
class Request:
    """What is asked of a store.

    Attributes:
        action: such as `s3:PutObject`.
        place: bucket and key, as `bucket/key`.
        facts: condition keys that the request has.
    """

    action: str
    place: str
    facts: Mapping[str, str] = field(default_factory=dict)


def put(place: str, if_none_match: str | None = None, creates: bool = True) -> Request:
    """A request to write: of a whole object, or (`creates` false) of a part or the beginning of an upload in parts."""
    facts = {CREATES: "true" if creates else "false"}
    return Request("s3:PutObject", place, facts if if_none_match is None else {**facts, IF_NONE_MATCH: if_none_match})


def is_allowed(policy: Mapping[str, Any], request: Request) -> bool:
    """Whether the one policy of a user allows the request."""
    effects = {statement["Effect"] for statement in policy["Statement"] if _fits(statement, request)}
    return "Allow" in effects and "Deny" not in effects


def _fits(statement: Mapping[str, Any], request: Request) -> bool:
    unknown = statement.keys() - KNOWN
    assert not unknown, f"{unknown}: not known to this test; teach it first"
    arn = f"arn:aws:s3:::{request.place}"
    return (
        any(_matches(pattern.lower(), request.action.lower()) for pattern in _list(statement["Action"]))
        and any(_matches(pattern, arn) for pattern in _list(statement["Resource"]))
        and all(
            _holds(operator, _list(wanted), _fact(key, request))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _holds(operator: str, wanted: Sequence[str], value: str | None) -> bool:
    if operator == "Null":
        return any((value is None) == (item == "true") for item in wanted)
    if value is None:
        return False
    if operator == "StringEquals":
        return value in wanted
    if operator == "StringLike":
        return any(_matches(pattern, value) for pattern in wanted)
    if operator == "Bool":
        return value.lower() in [item.lower() for item in wanted]
    raise AssertionError(f"{operator}: not known to this test; teach it first")


def _fact(key: str, request: Request) -> str | None:
    return next((value for name, value in request.facts.items() if name.lower() == key.lower()), None)


def _matches(pattern: str, text: str) -> bool:
    """`*` stands for any characters, slashes too, `?` for one."""
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(char, re.escape(char)) for char in pattern), text, re.DOTALL) is not None


def _list(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
