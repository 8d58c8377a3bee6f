"""Students in a registry of SQLite: versions, cards, champion and challenger, rollback, and the smoke test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import safetensors.torch
import torch
from mlflow.entities.model_registry import ModelVersion

from gkd_core.errors import PlatformError, WeightsError
from gkd_core.models.build import build_encoder
from gkd_core.models.licences import UNKNOWN_LICENCE
from gkd_core.models.segmentor import build_segmentor
from gkd_core.records import MANIFEST, Score, ScoreProtocol, SegmentorCheckpoint, sha256_of
from gkd_core.registry.challenge import ask_gate, champion_of, judge, trials_of
from gkd_core.registry.champions import OPEN_TAG, Champions
from gkd_core.registry.gate import SeedScores, Standing
from gkd_core.registry.logged_model import log_files, log_segmentor
from gkd_core.registry.model_card import DataUse, ModelFacts
from gkd_core.registry.serving_check import check_served
from gkd_core.registry.versions import DESCRIPTION_LIMIT, Registry, Student
from gkd_core.settings import EncoderSettings, RegistrySettings, Settings, settings_from_tree
from gkd_core.stages import Recipe
from gkd_core.stages.bundle import describe
from gkd_core.stages.fingerprint import fingerprint_of
from gkd_core.storage.mlflow_store import CHALLENGER, CHAMPION
from gkd_core.storage.model_files import FILE_TAG
from gkd_core.tracking.flow_runs import Tracking

NAME = "gkd-student-toy"
GATE = RegistrySettings(margin=0.5, max_drop=1)
EXAMPLE = torch.arange(2 * 3 * 32 * 32).remainder(17).div(16).reshape(2, 3, 32, 32)
FINGERPRINT = fingerprint_of(Recipe.of(Settings()), {"data/x": "d"})
PROTOCOL = ScoreProtocol(
    scale=1.0, max_size=None, labels_resized=False, window=(32, 32), stride=(32, 32), classes=3, selection="last checkpoint"
)


class Logged(NamedTuple):
    """A student that MLflow has as a logged model."""

    model_id: str
    run_id: str
    sha256: str


@pytest.fixture(scope="module")
def champions_and_students(
    tmp_path_factory: pytest.TempPathFactory, vit_settings: EncoderSettings
) -> Iterator[tuple[Champions, list[Logged]]]:
    project = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = Tracking(Settings(), project)
        folders = [write_checkpoint(project / f"student-{seed}", vit_settings, seed) for seed in range(3)]
        logged = [_log(tracking, folders[0]), *(_log_weights_alone(tracking, folder) for folder in folders[1:])]
        yield Champions(Registry(tracking.client, tracking.address)), logged


@pytest.fixture
def champions(champions_and_students: tuple[Champions, list[Logged]]) -> Iterator[Champions]:
    """The store with nothing registered."""
    champions, _ = champions_and_students
    yield champions
    for name in champions.registry.names("gkd-student"):
        champions.registry.client.delete_registered_model(name)


@pytest.fixture
def logged(champions_and_students: tuple[Champions, list[Logged]]) -> list[Logged]:
    return champions_and_students[1]


def write_checkpoint(folder: Path, encoder: EncoderSettings, seed: int) -> Path:
    folder.mkdir()
    state = build_segmentor(build_encoder(encoder, seed=seed), "linear", 3, 8, seed=seed).state_dict()
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "w.safetensors")
    record = SegmentorCheckpoint(
        encoder=encoder, decoder="linear", decoder_width=8, taxonomy="toy", classes=("a", "b", "c"), source="toy", method="gkd",
        weights="w.safetensors", sha256=sha256_of(folder / "w.safetensors"), seed=seed, updates=4, encoder_frozen=True,
    )  # fmt: skip
    record.write(folder / MANIFEST)
    return folder


def _log(tracking: Tracking, folder: Path) -> Logged:
    settings = settings_from_tree({"evaluate": {"window": [32, 32], "stride": [32, 32]}})
    bundle = describe(folder, Recipe.of(settings), folder)
    with tracking.run("learn-task-toy", {}) as run_id:
        model_id = log_segmentor(tracking.client, tracking.experiment, run_id, folder, bundle, EXAMPLE)
    return Logged(model_id, run_id, SegmentorCheckpoint.read(folder / MANIFEST).sha256)


def _log_weights_alone(tracking: Tracking, folder: Path) -> Logged:
    """Without the program, whose export takes seconds and which most tests never load."""
    with tracking.run("learn-task-toy", {}) as run_id:
        model_id = str(tracking.client.create_logged_model(tracking.experiment, "student-toy", run_id).model_id)
        log_files(tracking.client, model_id, folder)
        tracking.client.finalize_logged_model(model_id, "READY")
    return Logged(model_id, run_id, SegmentorCheckpoint.read(folder / MANIFEST).sha256)


def _score(domain: str, miou: float, seed: int) -> Score:
    return Score(
        method="gkd", teacher="t", student="s", seed=seed, benchmark="B", source="toy", domain=domain, dataset=f"{domain}/val",
        in_domain=domain == "in-domain", miou=miou, class_iou={}, images=2, protocol=PROTOCOL,
    )  # fmt: skip


def student(logged: Logged, encoder: EncoderSettings, fog: float, night: float, seed: int = 0) -> Student:
    scores = (_score("in-domain", 80, seed), _score("fog", fog, seed), _score("night", night, seed))
    data = {score.dataset: "d" for score in scores}
    facts = ModelFacts(
        model=NAME, source="toy", method="gkd", method_summary="features first", seed=seed, teacher=encoder, student=encoder,
        decoder="linear", classes=("a", "b", "c"), parameters=1234567, encoder_frozen=True,
        updates={"distill-proxy": 2400, "learn-task": 4}, sha256=logged.sha256, window=(32, 32),
        data=(DataUse(reference="fog/val", part="target", digest="d", pinned=True),),
        standing=Standing(name=NAME, seeds=(SeedScores(seed=seed, scores=scores),), data=data),
        teacher_licence="apache-2.0 (as timm states it)", student_licence=UNKNOWN_LICENCE, fingerprint="0123", revision="abc",
        dirty="false", flow_run="f", mlflow_run=logged.run_id,
    )  # fmt: skip
    return Student(logged.model_id, logged.run_id, facts, FINGERPRINT)


@pytest.fixture
def three(champions: Champions, logged: list[Logged], vit_settings: EncoderSettings) -> list[ModelVersion]:
    """Three versions: the second is better, the third loses the night."""
    values = ((50, 50), (60, 60), (90, 50))
    return [
        champions.registry.add(student(one, vit_settings, *pair, seed))
        for seed, (one, pair) in enumerate(zip(logged, values, strict=True))
    ]


@pytest.fixture
def bare(champions: Champions) -> Champions:
    """Three versions of which nothing is known: the alias moves without."""
    champions.registry.client.create_registered_model(NAME)
    for number in (1, 2, 3):
        champions.registry.client.create_model_version(NAME, f"file:///nowhere/{number}")
    return champions


def test_a_student_is_registered_once_with_what_is_known_of_it(
    champions: Champions, logged: list[Logged], vit_settings: EncoderSettings
) -> None:
    registry = champions.registry
    first = registry.add(student(logged[0], vit_settings, 50, 50))
    again = registry.add(student(logged[0], vit_settings, 51, 51))
    assert (first.version, again.version) == (again.version, first.version)
    assert [str(version.version) for version in registry.versions(NAME)] == [str(first.version)]
    version = registry.version(NAME, "1")
    assert version.tags["sha256"] == logged[0].sha256 and version.tags["miou.targets"] == "51.00"
    assert version.tags["data.fog/val"] == "d"
    assert registry.facts(version).standing.target_means() == [51], "what is known is the latest measurement"
    assert registry.fingerprint(version) == FINGERPRINT
    assert version.run_id == logged[0].run_id
    assert registry.aliases(NAME) == {}


def test_the_card_says_what_one_must_know(champions: Champions, logged: list[Logged], vit_settings: EncoderSettings) -> None:
    registry = champions.registry
    version = registry.add(student(logged[0], vit_settings, 50, 51.234))
    card = registry.read_card(version)
    for words in (
        "Gate: not asked yet", "learnt from labels of **toy** alone", "| B | night | 51.23 | 51.23 |", "no longer scores on",
        "1,234,567 parameters", "distill-proxy 2,400, learn-task 4", "apache-2.0 (as timm states it)", UNKNOWN_LICENCE,
        "| fog/val | target | `d` | yes |", "git `abc`", f"models:/{NAME}@champion", logged[0].sha256,
    ):  # fmt: skip
        assert words in card, f"{words} not in\n{card}"
    assert version.description == card and len(card) < DESCRIPTION_LIMIT
    judge(champions, NAME, "1", GATE)
    assert "**Gate: promoted.**" in registry.read_card(version)
    assert "nothing was compared" in registry.version(NAME, "1").description


def test_the_gate_of_the_registry_promotes_the_better_and_refuses_the_one_that_loses_a_domain(
    champions: Champions, three: list[ModelVersion]
) -> None:
    champions.promote(NAME, "1", "test", "first")
    assert champions.registry.aliases(NAME) == {CHAMPION: "1"}
    assert ask_gate(champions, NAME, "1", GATE) is None, "the champion itself"
    verdict = ask_gate(champions, NAME, "2", GATE)
    assert verdict is not None and verdict.promote and champions.registry.aliases(NAME) == {CHAMPION: "1"}
    champions.promote(NAME, "2", "test", "better")
    lost = judge(champions, NAME, "3", GATE)
    assert lost is not None and lost.decision == "refused" and "B night is down by 10.00 points" in lost.reasons[0]
    assert champions.registry.aliases(NAME) == {CHAMPION: "2", CHALLENGER: "3"}
    assert champions.registry.version(NAME, "3").tags["gate.decision"] == "refused"
    assert [trial.refused for trial in trials_of(champions.registry, NAME)] == [False, False, True]
    present = champion_of(champions, NAME)
    assert present is not None and present.version == "2"


def test_promotions_are_written_down_and_rolled_back_step_by_step(bare: Champions) -> None:
    for number in ("1", "2", "3"):
        bare.challenge(NAME, number)
        bare.promote(NAME, number, f"flow run {number}", "why")
    tags = bare.registry.version(NAME, "3").tags
    assert (tags["promoted_by"], tags["previous_champion"]) == ("flow run 3", "2")
    assert bare.registry.aliases(NAME) == {CHAMPION: "3"}, "who became champion is no challenger"
    bare.challenge(NAME, "1")
    assert bare.rollback(NAME, "me", "bad at night").after == "2"
    assert bare.registry.aliases(NAME) == {CHAMPION: "2", CHALLENGER: "1"}, "no other alias moves"
    assert bare.registry.version(NAME, "3").tags["rolled_back_why"] == "bad at night"
    assert bare.rollback(NAME, "me", "bad in rain").after == "1"
    with pytest.raises(PlatformError, match="no champion before this one is on record"):
        bare.rollback(NAME, "me", "again")
    bare.promote(NAME, "3", "me", "after all")
    assert bare.rollback(NAME, "me", "no").after == "1", "the stack, not the calendar, says who was before"
    moves = [(move.kind, move.before, move.after) for move in bare.history(NAME)]
    assert moves[3:] == [("rollback", "3", "2"), ("rollback", "2", "1"), ("promote", "1", "3"), ("rollback", "3", "1")]


def test_an_open_promotion_keeps_others_out_and_is_undone(bare: Champions) -> None:
    bare.promote(NAME, "1", "me", "first")
    move = bare.begin(NAME, "2", "flow run x", "better")
    with pytest.raises(PlatformError, match="flow run x began to promote version 2"):
        bare.begin(NAME, "3", "flow run y", "better still")
    bare.undo(NAME, move, "broken")
    assert bare.registry.aliases(NAME) == {CHAMPION: "1"}
    assert OPEN_TAG not in bare.registry.client.get_registered_model(NAME).tags
    bare.begin(NAME, "3", "flow run z", "left by a dead process")
    assert bare.rollback(NAME, "me", "it is dead").kind == "undo"
    assert bare.registry.aliases(NAME) == {CHAMPION: "1"}
    assert [move.kind for move in bare.history(NAME)] == ["promote", "undo", "undo"]


def test_what_fails_between_the_record_and_the_end_is_taken_off_the_record(bare: Champions) -> None:
    bare.promote(NAME, "1", "me", "first")
    bare.promote(NAME, "2", "me", "second")
    move = bare.begin(NAME, "3", "flow", "third")
    bare._record(NAME, move)
    bare.undo(NAME, move, "the connection broke")
    assert bare.rollback(NAME, "me", "back").after == "1"


def test_the_first_champion_taken_back_leaves_none(bare: Champions) -> None:
    bare.undo(NAME, bare.begin(NAME, "1", "flow", "first"), "broken")
    assert bare.registry.aliases(NAME) == {}


def test_an_alias_moved_by_other_means_is_not_guessed_about(bare: Champions) -> None:
    for number in ("1", "2"):
        bare.promote(NAME, number, "me", "why")
    bare.registry.client.set_registered_model_alias(NAME, CHAMPION, "3")
    with pytest.raises(PlatformError, match="@champion is version 3, but on record it is 2"):
        bare.rollback(NAME, "me", "back")


def test_what_is_not_there_is_named_with_what_is(bare: Champions) -> None:
    with pytest.raises(PlatformError, match="no version champion in sqlite.*; versions: 1, 2, 3; aliases: none"):
        bare.registry.version(NAME, CHAMPION)
    with pytest.raises(PlatformError, match="gkd-student-moon: no such registered model"):
        bare.history("gkd-student-moon")


def test_the_served_program_is_held_against_its_weights(
    champions: Champions, logged: list[Logged], vit_settings: EncoderSettings, tmp_path: Path
) -> None:
    registry = champions.registry
    registry.add(student(logged[0], vit_settings, 50, 50))
    assert check_served(registry, NAME, "1", tmp_path) == 2
    assert list(tmp_path.iterdir()) == [], "nothing is left"
    location = Path(str(registry.client.get_logged_model(logged[0].model_id).artifact_location).removeprefix("file://"))
    program = next(path for path in location.rglob("*.pt2"))
    content = program.read_bytes()
    try:
        torch.export.save(torch.export.export(_Nothing(), (EXAMPLE,)), program)
        with pytest.raises(WeightsError, match=r"version 1: data/model\.pt2: changed since it was logged"):
            check_served(registry, NAME, "1", tmp_path)
        registry.tag(NAME, "1", {f"{FILE_TAG}data/model.pt2": sha256_of(program)})
        with pytest.raises(PlatformError, match="does not give the logits of its own safetensors"):
            check_served(registry, NAME, "1", tmp_path)
        program.unlink()
        with pytest.raises(WeightsError, match=r"version 1: data/model\.pt2: missing since it was logged"):
            check_served(registry, NAME, "1", tmp_path)
    finally:
        program.write_bytes(content)


class _Nothing(torch.nn.Module):
    """Logits of the right shape that say nothing."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * 0
