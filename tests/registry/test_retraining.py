"""What asks for a new student, by name; and what does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gkd_core.errors import SettingsError
from gkd_core.registry.retraining import (
    Champion,
    Due,
    FieldLook,
    Trial,
    check_field,
    field_joins,
    field_override,
    seeds_to_run,
    what_is_due,
    with_field,
)
from gkd_core.settings import Settings, load_settings
from gkd_core.stages import Recipe
from gkd_core.stages.facts import STAGES
from gkd_core.stages.fingerprint import Fingerprint, differences, fingerprint_of

NOW = datetime(2030, 1, 31, tzinfo=UTC)
DATA = {"data/gta5": "aa.dir", "data/proxy": "bb.dir"}


def _fingerprint(*overrides: str, **data: str) -> Fingerprint:
    return fingerprint_of(Recipe.of(load_settings(None, "demo", overrides)), DATA | data)


def _champion(fingerprint: Fingerprint, days: float = 1) -> Champion:
    return Champion("4", fingerprint, NOW - timedelta(days=days))


def _due(champion: Champion | None, now: Fingerprint, *trials: Trial, age: float | None = 30) -> Due:
    return what_is_due("m", champion, trials, now, NOW, age)


def test_what_changed_is_named_with_both_values() -> None:
    old = _fingerprint()
    new = fingerprint_of(
        Recipe.of(load_settings(None, "demo", ["distill_proxy.updates=7", "recipe_version=9"])),
        {"data/gta5": "cc.dir", "data/new": "dd"},
    )
    assert differences(old, new) == [
        "the recipe changed: distill_proxy.updates: 2400 → 7",
        "the recipe changed: recipe_version: 3 → 9",
        "the data changed: data/gta5: aa.dir → cc.dir",
        "the data changed: data/new: not there → dd",
        "the data changed: data/proxy: bb.dir → not there",
    ]
    assert differences(old, _fingerprint()) == [] and old.digest == _fingerprint().digest != new.digest


@pytest.mark.parametrize(
    "override",
    [
        "seed=5",
        "registry.margin=3",
        "registry.teacher_licence=MIT",
        "evaluate.workers=0",
        "tracking.experiment=x",
        "compute.loaders=1",
    ],
)
def test_what_no_students_depends_on_changes_nothing(override: str) -> None:
    found = differences(_fingerprint(), _fingerprint(override))
    assert found == []


def test_no_stage_that_decides_a_student_depends_on_the_registry() -> None:
    runs = [run for run in Recipe.of(Settings()).plan if not STAGES[run.stage].retells]
    assert not [key for run in runs for key in run.params if key.startswith("registry")]
    assert len(runs) > len(Recipe.of(Settings()).sources)


def test_a_fingerprint_survives_its_file(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "fingerprint.json"
    _fingerprint().write(file)
    assert Fingerprint.read(file) == _fingerprint()
    assert Fingerprint.read(file).digest == _fingerprint().digest


def test_nothing_is_due_of_an_equal_champion() -> None:
    due = _due(_champion(_fingerprint()), _fingerprint())
    assert due.reasons == ()
    assert due.why_not == "m: version 4 is of today's data and recipe, 1.0 days old"


def test_no_champion_changes_and_age_are_due() -> None:
    assert _due(None, _fingerprint()).reasons == ("m: there is no champion",)
    changed = _due(_champion(_fingerprint()), _fingerprint(**{"data/gta5": "cc.dir"}))
    assert changed == Due(("m: the data changed: data/gta5: aa.dir → cc.dir",))
    old = _due(_champion(_fingerprint(), days=31), _fingerprint())
    assert old.further_seed and "31.0 days ago (registry.max_age_days: 30)" in old.reasons[0]
    assert _due(_champion(_fingerprint(), days=999), _fingerprint(), age=None).reasons == ()


def test_what_was_refused_is_not_tried_again_for_the_same_reason() -> None:
    now = _fingerprint("learn_task.updates=9")
    refused = Trial("5", now.digest, 0, True, NOW - timedelta(days=2))
    due = _due(_champion(_fingerprint(), days=3), now, refused)
    assert due.reasons == () and "version 5, of today's data and recipe, was refused on 2030-01-29" in due.why_not
    assert _due(_champion(_fingerprint()), _fingerprint("learn_task.updates=8"), refused).reasons
    unjudged = Trial("5", now.digest, 0, False, NOW - timedelta(days=2))
    assert _due(_champion(_fingerprint()), now, unjudged).reasons, "its promotion failed: it is taken up again"


def test_the_age_counts_from_the_latest_trial() -> None:
    now = _fingerprint()
    trial = Trial("5", now.digest, 1, True, NOW - timedelta(days=2))
    assert _due(_champion(now, days=90), now, trial).reasons == ()
    assert _due(_champion(now, days=90), now, trial, age=1).further_seed


def test_age_alone_takes_further_seeds() -> None:
    trials = [Trial("1", "x", 0, False, NOW), Trial("2", "x", 3, True, NOW)]
    age, change, none = Due(("old",), further_seed=True), Due(("changed",)), Due((), "fine")
    assert seeds_to_run([0, 1], trials, [age, none]) == [4, 5]
    assert seeds_to_run([0, 1], trials, [age, change]) == [0, 1]
    assert seeds_to_run([0], [], [age]) == [0]


def _joined(digest: str) -> Fingerprint:
    return _fingerprint("data.field=inbox", **{"inbox": digest})


def test_images_beyond_the_bound_ask_and_are_named_and_others_do_not() -> None:
    near, far = FieldLook(1.2, 1.5, 40), FieldLook(2.25, 1.5, 40)
    now = _fingerprint()
    assert what_is_due("m", _champion(now), [], now, NOW, 30, near) == Due(
        (),
        "m: version 4 is of today's data and recipe, 1.0 days old; "
        "40 images from the field, median distance 1.20 (registry.field_images.bound: 1.5)",
    )
    due = what_is_due("m", _champion(now), [], _joined("aa"), NOW, 30, far)
    (reason,) = due.reasons
    assert reason.startswith("m: 40 images from the field, median distance 2.25") and "they join the proxy" in reason
    assert not due.further_seed


def test_a_folder_that_changes_by_the_day_asks_by_its_distance_alone() -> None:
    champion, near, far = _champion(_joined("aa")), FieldLook(1.2, 1.5, 4), FieldLook(9, 1.5, 4)
    assert what_is_due("m", champion, [], _joined("bb"), NOW, 30, near).reasons == ()
    assert len(what_is_due("m", champion, [], _joined("bb"), NOW, 30, far).reasons) == 1
    assert len(what_is_due("m", champion, [], _joined("bb"), NOW, 30).reasons) == 1, "where nothing is asked of it, it is data"
    changed = _fingerprint("data.field=inbox", "learn_task.updates=7", **{"inbox": "bb"})
    (reason,) = what_is_due("m", champion, [], changed, NOW, 30, near).reasons
    assert "learn_task.updates" in reason


def test_images_that_joined_a_refused_student_ask_again_only_when_there_are_others() -> None:
    refused, far = Trial("5", _joined("aa").digest, 0, True, NOW - timedelta(days=1)), FieldLook(9, 1.5, 4)
    champion = _champion(_fingerprint(), days=3)
    assert what_is_due("m", champion, [refused], _joined("aa"), NOW, 30, far).reasons == ()
    assert len(what_is_due("m", champion, [refused], _joined("bb"), NOW, 30, far).reasons) == 1


FIELD_SET = "registry.field_images={folder: inbox, bound: 1.5}"


def test_they_join_where_they_ask_and_where_they_joined_the_champion() -> None:
    settings, far, near = load_settings(None, "demo", [FIELD_SET]), FieldLook(9, 1.5, 4), FieldLook(1, 1.5, 4)
    plain, joined = _champion(_fingerprint()), _champion(_joined("aa"))
    assert not field_joins(settings, [plain], [near])
    assert field_joins(settings, [plain], [far]) and field_joins(settings, [plain, joined], [near])
    assert not field_joins(load_settings(None, "demo", []), [joined], []), "the setting was taken back"
    assert with_field(settings).data.field == "inbox"
    asked = load_settings(None, "demo", [FIELD_SET, *field_override(settings, True)])
    assert asked == with_field(settings) and field_override(settings, False) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["data.field=other"], "data.field is set beside it"),
        (["method=no-kd"], "method no-kd has no stage 1a"),
        (["distill_proxy.updates=0"], "has no stage 1a here"),
    ],
)
def test_images_that_could_not_join_are_refused(changes: list[str], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        check_field(load_settings(None, "demo", [FIELD_SET, *changes]))


def test_a_bound_that_known_images_are_beyond_is_refused() -> None:
    with pytest.raises(SettingsError, match="registry.field_images.bound"):
        load_settings(None, "demo", ["registry.field_images={folder: inbox, bound: 1}"])
