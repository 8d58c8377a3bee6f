"""A proxy does not stand between us and our own servers, and a user without a name has one."""

from __future__ import annotations

import getpass
import os
import pwd
import urllib.request

import pytest

from gkd_core.system.environment import prepare_environment

PROXY = "http://127.0.0.1:9"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_loopback_is_reached_past_any_proxy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "")  # and so it is taken back
    monkeypatch.setenv(name, PROXY)
    prepare_environment()
    for host in ("127.0.0.1", "localhost", "127.0.0.1:4200"):
        assert urllib.request.proxy_bypass_environment(host)
    assert not urllib.request.proxy_bypass_environment("example.org")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"NO_PROXY": "corp.example"}, "corp.example,127.0.0.1,localhost,::1"),
        ({"no_proxy": "a, b ,", "NO_PROXY": "c"}, "a,b,127.0.0.1,localhost,::1"),
        ({"no_proxy": "localhost"}, "localhost,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_what_is_spared_already_stays_so(given: dict[str, str], wanted: str) -> None:
    environment = {"http_proxy": PROXY, **given}
    prepare_environment(environment)
    assert (environment["no_proxy"], environment["NO_PROXY"]) == (wanted, wanted)


def test_without_a_proxy_nothing_is_set() -> None:
    environment = {"USER": "somebody", "HTTP_PROXY": ""}
    prepare_environment(environment)
    assert environment == {"USER": "somebody", "HTTP_PROXY": ""}


@pytest.mark.parametrize("name", ["LOGNAME", "USER", "USERNAME", None])
def test_a_user_without_an_entry_has_a_name(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> object:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    environment = {} if name is None else {name: "somebody"}
    prepare_environment(environment)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert getpass.getuser() == (f"uid-{os.getuid()}" if name is None else "somebody")
