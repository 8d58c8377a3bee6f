"""How a command line ends: exit codes and one-line errors."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import traceback

import typer

from gkd_core.cli.streams import guarded_output
from gkd_core.errors import EXIT_TRANSIENT, EXIT_USER_ERROR, GkdError, TransientError
from gkd_core.messages import one_line
from gkd_core.system.environment import prepare_environment
from gkd_core.system.last_words import leave_last_words

EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted; the same command goes on from the last checkpoint"
EXIT_FAULT = 70  # EX_SOFTWARE of sysexits.h: a fault of ours
EXIT_PIPE = 128 + signal.SIGPIPE  # as of a program that writes to a pipe which nobody reads
LONGEST_LINE = 2000
VARIABLE = "GKD_TRACEBACK"
# What to do about errors of the system that one cannot guess from their names.
ADVICE = {
    errno.ENOSPC: "make room there, then run the same command again",
    errno.EDQUOT: "make room there, then run the same command again",
    errno.EFBIG: "the file system or a limit (ulimit -f) allows no larger file",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "give yourself the right to it, or choose another folder",
    errno.EPERM: "give yourself the right to it, or choose another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (ulimit -n)",
}


def run_command_line(commands: typer.Typer) -> None:
    """Run a command line: 0 on success, 2 for an error that the user can correct, 75 for one that may pass by itself, 130 after
    Ctrl-C or SIGTERM, 70 for a fault of ours, whose traceback is kept in a file that the line names (GKD_TRACEBACK=1 prints it).
    """
    prepare_environment()
    # A stage that is told to end must leave its `with` blocks, or half-written files would stay. Both are set, as a process
    # that a script starts in the background inherits a Ctrl-C that is ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with guarded_output():
        try:
            commands()
            sys.stdout.flush()
        except SystemExit as end:
            # Typer has turned Ctrl-C into an exit already.
            if end.code == EXIT_INTERRUPTED:
                _say(INTERRUPTED)
            raise
        except BrokenPipeError:
            _leave_pipe()
            sys.exit(EXIT_PIPE)
        except Exception as error:
            sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    """Say what happened, here and to who started us; gives the exit status."""
    lines, status = _verdict(error)
    for line in lines:
        _say(line)
    leave_last_words([one_line(line, LONGEST_LINE) for line in lines])
    return status


def _verdict(error: Exception) -> tuple[list[str], int]:
    if isinstance(error, GkdError):
        return str(error).splitlines(), EXIT_TRANSIENT if isinstance(error, TransientError) else EXIT_USER_ERROR
    if isinstance(error, OSError) and error.errno is not None:
        return [_system_error(error)], EXIT_USER_ERROR
    if isinstance(error, MemoryError):
        return ["out of memory; take smaller batches or fewer workers, then run the same command again"], EXIT_USER_ERROR
    if os.environ.get(VARIABLE) == "1":
        raise error
    words = one_line(error) or "no further word"
    line = f"unexpected {type(error).__name__}: {words}; please report this with its traceback, which is {_keep(error)}"
    return [line], EXIT_FAULT


def _system_error(error: OSError) -> str:
    name, target = (os.fsdecode(given) if isinstance(given, bytes | str) else None for given in (error.filename, error.filename2))
    advice = f"; {ADVICE[error.errno]}" if error.errno in ADVICE else ""
    place = " -> ".join(part for part in (name, target) if part) or "input or output"
    return f"{place}: {error.strerror or error}; nothing half-written was kept{advice}"


def _keep(error: Exception) -> str:
    """Write the traceback to a file of the user's own; says where."""
    try:
        handle, name = tempfile.mkstemp(prefix="gkd-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(error))
    except OSError as refused:
        return f"lost ({refused.strerror or refused}); {VARIABLE}=1 prints it"
    return f"in {name} ({VARIABLE}=1 prints it)"


def _say(line: str) -> None:
    # Messages of ours are bounded where they repeat what was given; this holds for those of libraries too.
    print(f"gkd: {one_line(line, LONGEST_LINE)}", file=sys.stderr)


def _leave_pipe() -> None:
    """Nobody reads what we print. Python would find that out once more when it ends, and say so."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # no file of the system behind it, as in a test
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
