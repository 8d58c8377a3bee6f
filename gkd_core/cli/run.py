"""How a command line ends: exit codes and one-line errors."""

from __future__ import annotations

import signal
import sys

import typer

from gkd_core.errors import EXIT_TRANSIENT, EXIT_USER_ERROR, GkdError, TransientError

EXIT_INTERRUPTED = 130


def run_command_line(commands: typer.Typer) -> None:
    """Run a command line: 0 on success, 2 for an error that the user can mend, 75 for one that may pass by itself, 130 after
    Ctrl-C or SIGTERM.
    """
    # A stage that is told to end must leave its `with` blocks, or half-written files would stay. Both are set, as a process
    # that a script starts in the background inherits a Ctrl-C that is ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        commands()
    except GkdError as error:
        for line in str(error).splitlines():
            print(f"gkd: {line}", file=sys.stderr)
        sys.exit(EXIT_TRANSIENT if isinstance(error, TransientError) else EXIT_USER_ERROR)
    except OSError as error:
        print(
            f"gkd: {error.filename or 'input or output'}: {error.strerror or error}; nothing half-written was kept",
            file=sys.stderr,
        )
        sys.exit(EXIT_USER_ERROR)
    except SystemExit as end:
        # Typer has turned Ctrl-C into an exit already.
        if end.code == EXIT_INTERRUPTED:
            print("gkd: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        raise
