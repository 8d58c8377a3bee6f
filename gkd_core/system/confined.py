"""A sandbox for untrusted code: the process loses access to files outside one folder, the network and other processes.

For programs whose output is checked. Only Linux can do it: Landlock (from kernel 5.13) for files, seccomp for system calls.
Both are reached by ctypes: PyPI's `landlock` is a pre-release that knows nothing of the later rights, and `pyseccomp` needs a
library of the system that containers rarely have. What is given up stays given up, for this process and all that it starts.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446  # the same on every architecture
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
READING = EXECUTE | READ_FILE | READ_DIR
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14
# Rights that each version of Landlock added to those of the first: to link elsewhere, to truncate, to steer devices.
ADDED = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
# What a program needs to start: Python and its packages, the system's libraries, and what it asks of the machine.
SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")

# System calls by which a process reaches others or the network; io_uring can do the same without them.
_CALLS = {
    "x86_64": (0xC000003E, {
        "socket": 41, "connect": 42, "bind": 49, "socketpair": 53, "execve": 59, "kill": 62, "ptrace": 101, "tkill": 200,
        "process_vm_readv": 310, "process_vm_writev": 311, "execveat": 322, "pidfd_send_signal": 424, "io_uring_setup": 425,
        "pidfd_getfd": 438,
    }),
    "aarch64": (0xC00000B7, {
        "socket": 198, "connect": 203, "bind": 200, "socketpair": 199, "execve": 221, "kill": 129, "ptrace": 117, "tkill": 130,
        "process_vm_readv": 270, "process_vm_writev": 271, "execveat": 281, "pidfd_send_signal": 424, "io_uring_setup": 425,
        "pidfd_getfd": 438,
    }),
}  # fmt: skip
REFUSED, ALLOWED, X32 = 0x00050000 | 13, 0x7FFF0000, 0x40000000  # 13: EACCES


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]


def confine(scratch: Path, readable: Iterable[Path], seconds: int, file_bytes: int) -> list[str]:
    """Give up all but reading `readable` and the system's own files, and writing below `scratch`.

    Args:
        seconds: of CPU that this process may still use.
        file_bytes: size of the largest file that it may write.

    Returns:
        what this machine cannot withhold, in words; empty where all is withheld.
    """
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return ["files", "the network"]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return ["files", "the network"]
    lacking = [] if _confine_files(libc, scratch, readable) else ["files"]
    return lacking if _confine_calls(libc) else [*lacking, "the network"]


def _confine_files(libc: ctypes.CDLL, scratch: Path, readable: Iterable[Path]) -> bool:
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    rights = 0
    for since, added in ADDED.items():
        rights |= added if version >= since else 0
    attributes = _Ruleset(rights)
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    if ruleset < 0:
        return False
    try:
        own = (sys.prefix, sys.base_prefix, sys.exec_prefix)
        for path in {*map(str, readable), *own, *SYSTEM}:
            _allow(libc, ruleset, path, READING)
        for path in DEVICES:
            _allow(libc, ruleset, path, READ_FILE | WRITE_FILE)
        _allow(libc, ruleset, str(scratch), rights & ~EXECUTE)
        return bool(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """Allow rights below a path; what is not there needs none."""
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = _PathBeneath(rights if os.path.isdir(path) else rights & FILE_RIGHTS, parent)
        libc.syscall(LANDLOCK_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(parent)


def _confine_calls(libc: ctypes.CDLL) -> bool:
    if platform.machine() not in _CALLS:
        return False
    architecture, calls = _CALLS[platform.machine()]
    load, jump_equal, jump_at_least, give = 0x20, 0x15, 0x35, 0x06
    refuse = len(calls) + 1
    steps = [(load, 0, 0, 4), (jump_equal, 0, refuse + 2, architecture), (load, 0, 0, 0), (jump_at_least, refuse, 0, X32)]
    steps += [(jump_equal, refuse - 1 - index, 0, number) for index, number in enumerate(calls.values())]
    steps += [(give, 0, 0, ALLOWED), (give, 0, 0, REFUSED)]
    program = b"".join(struct.pack("HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = _Filter(len(steps), ctypes.cast(buffer, ctypes.c_void_p))
    return bool(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0) == 0)
