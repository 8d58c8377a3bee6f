"""Fuzzing in processes of their own, which an input may kill or stop: who starts them counts that as a fault too.

`make fuzz` runs this for a bounded time, under atheris where it is installed; the tests run it for a number of inputs.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[3]
KEPT = PROJECT / "artifacts" / "fuzz"
TARGETS = "tests.security.fuzz.targets"
TALLY, RUNNING, FOUND = "tally", "running", "found"
NUMBERS = struct.Struct("<4Q")  # inputs tried, accepted, refused, faults
HANGING = 20  # seconds in one input after which libFuzzer ends the process
SLOW = 0.1  # seconds of an input on a machine that has much else to do; alone it takes a thirtieth of that
GRACE = 60.0  # seconds after which a process that should have ended hangs in an input
MOST_KEPT = 10  # inputs a target: many lead to one fault


@dataclass(frozen=True)
class Figures:
    """What became of a target's inputs."""

    name: str
    tried: int
    accepted: int
    refused: int
    faults: int


def table(rows: Iterable[Figures]) -> str:
    """The figures of all targets, and their sums."""
    rows = list(rows)
    sums = Figures("all", *(sum(getattr(row, name) for row in rows) for name in ("tried", "accepted", "refused", "faults")))
    lines = [f"{'target':22}{'inputs':>9}{'accepted':>10}{'refused':>9}{'faults':>8}"]
    lines += [f"{row.name:22}{row.tried:9}{row.accepted:10}{row.refused:9}{row.faults:8}" for row in (*rows, sums)]
    return "\n".join(lines)


def names_of(module: str = TARGETS) -> list[str]:
    """The names of a module's targets, asked of a process of its own: whoever starts them all need not load torch."""
    code = f"import {module} as module; print(*module.TARGETS)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def run(
    names: Sequence[str], kept: Path, *, mutations: int = 0, seconds: float = 0, atheris: bool = False, module: str = TARGETS
) -> list[Figures]:
    """Run targets one after another in one process; after one that an input has killed, go on in another.

    Args:
        kept: folder for the inputs that led to a fault.
        mutations: how many are tried of each target, beside the committed inputs.
        seconds: instead of a number, how long the process lasts, for all of them.
    """
    for name in names:
        for file in (kept / name / TALLY, kept / name / RUNNING, *(kept / name).glob("fault-*")):
            file.unlink(missing_ok=True)
    figures: list[Figures] = []
    while left := list(names[len(figures) :]):
        command = [sys.executable, "-m", "tests.security.fuzz.run", *left, "--child", "--kept", str(kept), "--module", module]
        command += ["--mutations", str(mutations), "--seconds", str(seconds), *(["--atheris"] if atheris else [])]
        limit = (seconds or mutations * len(left) * SLOW) + GRACE
        try:
            done = subprocess.run(
                command, cwd=PROJECT, capture_output=True, text=True, errors="replace", timeout=limit, check=False
            )
            ended = f"exit status {done.returncode}\n{done.stderr[-4000:]}"
        except subprocess.TimeoutExpired:
            ended = f"killed after {limit:.0f} s"
        begun = [name for name in left if (kept / name / TALLY).exists()]
        if not begun:
            raise RuntimeError(f"{left[0]}: did not begin: {ended}")
        figures += [_figures(kept / name, name, ended) for name in begun]
    return figures


def _figures(folder: Path, name: str, ended: str) -> Figures:
    """What a process has noted of a target; an input that it did not survive is kept, with how it ended."""
    tried, accepted, refused, faults = NUMBERS.unpack((folder / TALLY).read_bytes())
    if (folder / RUNNING).exists():
        tried, faults = tried + 1, faults + 1
        os.replace(folder / RUNNING, folder / "fault-killed")
        (folder / "fault-killed.txt").write_text(ended, encoding="utf-8")
    return Figures(name, tried, accepted, refused, faults)


class Tally:
    """Counts what becomes of inputs, in a file, which outlives the process; keeps those that led to a fault."""

    def __init__(self, folder: Path, target: Any, has_alarm: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._target, self._counts = folder, target, [0, 0, 0, 0]
        self._has_alarm = has_alarm
        self._file = (folder / TALLY).open("wb", buffering=0)
        self._places: set[str] = set()
        self._note()

    def __call__(self, content: bytes) -> None:
        from tests.security.fuzz.harness import judge

        # Written before: an input may be the last that this process reads.
        (self._folder / RUNNING).write_bytes(content)
        verdict = judge(self._target, content, has_alarm=self._has_alarm)
        self._counts[0] += 1
        self._counts[("accepted", "refused", "fault").index(verdict.kind) + 1] += 1
        place = verdict.detail[:60]
        if verdict.kind == "fault" and place not in self._places and len(self._places) < MOST_KEPT:
            self._places.add(place)
            file = self._folder / f"fault-{len(self._places)}"
            file.write_bytes(content)
            file.with_name(f"{file.name}.txt").write_text(verdict.detail + "\n", encoding="utf-8", errors="backslashreplace")
        self._note()

    def _note(self) -> None:
        os.pwrite(self._file.fileno(), NUMBERS.pack(*self._counts), 0)

    def close(self) -> None:
        """The last input was survived."""
        (self._folder / RUNNING).unlink(missing_ok=True)


def _child(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    sys.dont_write_bytecode = True  # a module that a reader loads late would be compiled into a file outside its scratch folder
    import logging
    import warnings

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    if arguments.atheris:
        import atheris

        with atheris.instrument_imports(include=["gkd_core", "yaml", "tarfile", "PIL"]):
            targets = importlib.import_module(arguments.module).TARGETS
        # By its name it would take all of torch with it, which takes minutes.
        from torch._weights_only_unpickler import Unpickler

        atheris.instrument_func(Unpickler.load)
    else:
        targets = importlib.import_module(arguments.module).TARGETS
    from tests.security.fuzz.corpus import inputs

    for place, name in enumerate(arguments.names):
        seconds = max(1.0, (arguments.seconds - (time.monotonic() - began)) / (len(arguments.names) - place))
        # libFuzzer ends its process. To load everything again for each target would take most of the time.
        if arguments.atheris and os.fork():
            os.wait()
            continue
        seeds = list(inputs(name).values()) or [b""]
        tally = Tally(arguments.kept / name, targets[name], has_alarm=not arguments.atheris)
        for content in seeds:
            tally(content)
        if arguments.atheris:
            _under_atheris(arguments.kept / name, targets[name], tally, seeds, seconds)
        else:
            _mutate(targets[name], tally, seeds, arguments.mutations, time.monotonic() + seconds)
        tally.close()


def _mutate(target: Any, tally: Tally, seeds: list[bytes], most: int, deadline: float) -> None:
    from tests.security.fuzz.mutations import mutated

    number = 0
    while number < most if most else time.monotonic() < deadline:
        tally(mutated(target, seeds, number))
        number += 1


def _under_atheris(folder: Path, target: Any, tally: Tally, seeds: list[bytes], seconds: float) -> None:
    import random

    import atheris

    from tests.security.fuzz.mutations import LARGEST, mutation

    def one(content: bytes) -> None:
        tally(content)
        if time.monotonic() > end:
            tally.close()
            os._exit(0)  # libFuzzer itself looks at the clock too seldom for a slow target

    def change(content: bytes, largest: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if draw.random() < 0.5:
            return bytes(atheris.Mutate(content, largest))
        return mutation(target, [content, *seeds], draw)[:largest]

    end = time.monotonic() + seconds
    found = folder / FOUND
    found.mkdir(exist_ok=True)
    for number, content in enumerate(seeds):
        (found / f"seed-{number}").write_bytes(content)
    # Memory is judged by `judge`; by its own limit libFuzzer would stop on the libraries alone.
    flags = [f"-timeout={HANGING}", "-rss_limit_mb=0", f"-max_len={LARGEST}", f"-artifact_prefix={folder}/", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, str(found)], one, custom_mutator=change)
    atheris.Fuzz()


def main() -> int:
    """Run all targets within a time, or those named; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="targets; all where none is named")
    parser.add_argument("--seconds", type=float, default=150.0, help="for all targets together")
    parser.add_argument("--mutations", type=int, default=0, help="a number of inputs of each target, instead of a time")
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder for inputs that led to a fault")
    parser.add_argument("--module", default=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--atheris", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _child(arguments)
        return 0
    atheris = importlib.util.find_spec("atheris") is not None and not arguments.mutations
    names = arguments.names or names_of(arguments.module)
    jobs = min(2, len(names), os.cpu_count() or 1)
    print(f"{len(names)} targets, {'atheris' if atheris else 'mutations alone'}", flush=True)

    def share(first: int) -> list[Figures]:
        seconds = 0 if arguments.mutations else arguments.seconds
        part, module = names[first::jobs], arguments.module
        return run(part, arguments.kept, mutations=arguments.mutations, seconds=seconds, atheris=atheris, module=module)

    with ThreadPoolExecutor(jobs) as pool:
        rows = [row for rows in pool.map(share, range(jobs)) for row in rows]
    rows.sort(key=lambda row: names.index(row.name))
    print(table(rows))
    faults = sum(row.faults for row in rows)
    if faults:
        for row in rows:
            for file in sorted((arguments.kept / row.name).glob("fault-*.txt")) if row.faults else ():
                print(f"{file.with_suffix('')}: {file.read_text(encoding='utf-8').strip()[:300]}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
