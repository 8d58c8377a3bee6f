"""HTTP requests to a service: any failure is a reply, never an exception."""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

SECONDS = 5.0
LARGEST = 64 * 1024


class Reply(NamedTuple):
    """What came back. `status` is None where nothing did; `text` then says why."""

    status: int | None
    text: str
    headers: Mapping[str, str]


def get(url: str, headers: Mapping[str, str]) -> Reply:
    """GET an address, within a few seconds."""
    try:
        request = urllib.request.Request(url, headers=dict(headers))
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return Reply(answer.status, answer.read(LARGEST).decode("utf-8", "replace"), dict(answer.headers))
    except urllib.error.HTTPError as error:
        return Reply(error.code, "", dict(error.headers))
    except urllib.error.URLError as error:
        return Reply(None, str(error.reason), {})
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Reply(None, str(error) or type(error).__name__, {})


def basic(user_and_password: str) -> dict[str, str]:
    """The header that lets `user:password` in."""
    return {"Authorization": "Basic " + base64.b64encode(user_and_password.encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """The header that lets a token in."""
    return {"Authorization": f"Bearer {token}"}


def without_password(address: str) -> str:
    """An address as it may be shown."""
    parts = urlsplit(address)
    _, at, host = parts.netloc.rpartition("@")
    user = parts.username or ""
    return urlunsplit(parts._replace(netloc=f"{user}@{host}" if at and user else host))


def password_in(address: str) -> bool:
    """Whether an address holds a password."""
    return urlsplit(address).password is not None
