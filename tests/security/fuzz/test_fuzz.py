"""Every reader of foreign bytes on the committed inputs and on mutations of them: taken, or refused by an error of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.fuzz.broken import JUDGED, OUTSIDE
from tests.security.fuzz.corpus import CORPUS, FAULT, VALID, inputs
from tests.security.fuzz.harness import Target, judge
from tests.security.fuzz.mutations import mutated
from tests.security.fuzz.run import run, table
from tests.security.fuzz.targets import TARGETS

MUTATIONS = 40  # of each target; `make fuzz` tries more
BROKEN = "tests.security.fuzz.broken"


def test_no_reader_has_a_fault_on_the_corpus_and_mutations_of_it(tmp_path: Path) -> None:
    figures = run(list(TARGETS), tmp_path, mutations=MUTATIONS)
    print("\n" + table(figures))
    said = [file.read_text(encoding="utf-8")[:500] for file in sorted(tmp_path.glob("*/fault-*.txt"))]
    assert said == []
    assert [row.name for row in figures] == list(TARGETS)
    for row in figures:
        assert row.tried == MUTATIONS + len(inputs(row.name)) == row.accepted + row.refused, row
        # A target that takes nothing tests the first lines of its reader.
        assert row.accepted >= len(inputs(row.name, VALID)) > 0, row
        assert row.refused > 0 or TARGETS[row.name].refusals == (), row


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_are_accepted(name: str) -> None:
    for file, content in inputs(name, VALID).items():
        assert judge(TARGETS[name], content).detail == "", file


def test_the_corpus_is_small_and_of_known_targets() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert all(path.name.startswith((VALID, FAULT)) for path in files)
    assert sum(path.stat().st_size for path in files) < 500_000
    assert max(path.stat().st_size for path in files) < 16_000


def test_mutations_are_the_same_each_time_and_differ() -> None:
    seeds = list(inputs("json").values())
    made = [mutated(TARGETS["json"], seeds, number) for number in range(100)]
    assert made == [mutated(TARGETS["json"], seeds, number) for number in range(100)]
    assert len(set(made)) > 80


@pytest.mark.parametrize("target", JUDGED, ids=lambda target: target.name)
def test_a_fault_is_seen(target: Target) -> None:
    verdict = judge(target, b"x", seconds=0.5, memory=50 * 2**20)
    assert verdict.kind == "fault", verdict
    assert verdict.detail
    assert not OUTSIDE.exists()


def test_an_input_that_kills_the_process_is_kept_and_the_others_are_still_run(tmp_path: Path) -> None:
    wrong, aborts, sound = run(["wrong_class", "aborts", "sound"], tmp_path, mutations=3, module=BROKEN)
    assert (wrong.tried, wrong.faults) == (4, 4)
    assert (tmp_path / "wrong_class" / "fault-1.txt").read_text().startswith("KeyError")
    assert aborts.faults == 1
    assert len((tmp_path / "aborts" / "fault-killed").read_bytes()) < 2
    assert sound.faults == 0 < sound.tried
