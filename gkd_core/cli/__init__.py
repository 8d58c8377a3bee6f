"""The command line `gkd`: `app` has the recipe's commands, `data` the group `gkd data`."""

from gkd_core.cli.app import app, main
from gkd_core.cli.run import run_command_line

__all__ = ["app", "main", "run_command_line"]
