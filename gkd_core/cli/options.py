"""The options of every command that needs settings, and how they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gkd_core.paths import PARAMS

if TYPE_CHECKING:
    from gkd_core.settings import Settings


Profile = Annotated[
    str | None, typer.Option("--profile", help="Shipped profile to use instead of params.yaml, such as demo or camvid.")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as distill_proxy.updates=200. Can be repeated.")]


def read_settings(profile: str | None, overrides: list[str] | None) -> Settings:
    """The settings of params.yaml here, or of a shipped profile, with single ones on top."""
    from gkd_core.settings import load_settings

    return load_settings(PARAMS, profile, overrides or [])


def one_profile(argument: str | None, option: str | None) -> str | None:
    """The profile that a command names as its argument or by --profile; `SettingsError` where these are two."""
    if argument and option and argument != option:
        from gkd_core.errors import SettingsError

        raise SettingsError(f"--profile {option}: {argument} is named beside it; give one profile")
    return argument or option
