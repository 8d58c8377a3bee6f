"""The settings tree: its file form, its overlays, and its refusals, each one line."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from gkd_core.errors import SettingsError
from gkd_core.settings import DistillSettings, Settings, dump_settings, load_settings, profile_names, settings_from_tree

REPOSITORY = Path(__file__).parents[2]


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and every section below it."""
    yield model
    for field in model.model_fields.values():
        kinds = get_args(field.annotation) if isinstance(field.annotation, types.UnionType) else (field.annotation,)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from sections(kind)


def refusal(*overrides: str, profile: str | None = "demo") -> str:
    with pytest.raises(SettingsError) as error:
        load_settings(None, profile, overrides)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("profile", [None, *profile_names()])
def test_what_is_dumped_is_read_back_equal(tmp_path: Path, profile: str | None) -> None:
    settings = load_settings(None, profile, ["seed=3", "student.options={depth: 3, act_layer: gelu, qk_norm: true, drop: 1.5}"])
    (tmp_path / "params.yaml").write_text(dump_settings(settings))
    assert load_settings(tmp_path / "params.yaml") == settings


def test_the_repositorys_params_are_the_demo_profile() -> None:
    assert load_settings(REPOSITORY / "params.yaml") == load_settings(None, "demo")


def test_every_field_says_what_it_is() -> None:
    fields = {
        f"{section.__name__}.{name}": field for section in sections(Settings) for name, field in section.model_fields.items()
    }
    assert len(fields) > 60
    assert [name for name, field in fields.items() if not (field.description or "").strip()] == []


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().seed = 1  # type: ignore[misc]


def test_overlays_and_their_precedence(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("seed: 4\ndistill_proxy: {updates: 9}\nteacher: {options: {depth: 7}}\n")
    plain, from_file = load_settings(), load_settings(params)
    assert (from_file.seed, from_file.distill_proxy.updates) == (4, 9)
    assert from_file.distill_proxy.batch_size == plain.distill_proxy.batch_size, "missing keys keep their defaults"
    assert from_file.teacher.options == {"depth": 7}
    demo = load_settings(params, "demo")
    assert (demo.seed, demo.distill_proxy.updates) == (plain.seed, load_settings(None, "demo").distill_proxy.updates)
    overridden = load_settings(params, "demo", ["distill_proxy.updates=1", "distill_proxy.updates=2", "data.world.seed=8"])
    assert (overridden.distill_proxy.updates, overridden.data.world.seed if overridden.data.world else None) == (2, 8)
    assert overridden.distill_proxy.lr == demo.distill_proxy.lr


def test_profiles_name_only_what_they_change() -> None:
    settings = load_settings(None, "demo")
    assert settings.student.options == {"embed_dim": 96, "depth": 3, "num_heads": 3}
    assert settings.distill_proxy.mask_ratio == Settings().distill_proxy.mask_ratio


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("distill_proxy.lr=1e-3", 1e-3),
        ("distill_proxy.clip_norm=null", None),
        ("evaluate.window=[64, 96]", (64, 96)),
        ("student.options={depth: 2}", {"depth": 2}),
        ("student.options.depth=2", 2),
        ("teacher.weights=a=b.pth", "a=b.pth"),
        ("data.benchmarks=[C2A]", ("C2A",)),
        (" seed =5", 5),
    ],
)
def test_set_reads_values_as_yaml(override: str, value: object) -> None:
    node: Any = load_settings(None, "demo", [override])
    for part in override.partition("=")[0].strip().split("."):
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    assert node == value


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        (
            "distill_proxy.updatse=5",
            ["distill_proxy.updatse: unknown key", "given: 5", "updates, epochs, batch_size", "did you mean 'updates'?"],
        ),
        ("distil_proxy.updates=5", ["distil_proxy: unknown key", "did you mean 'distill_proxy'?"]),
        ("data.world.sede=5", ["data.world.sede: unknown key", "did you mean 'seed'?"]),
        (
            "evaluate.nothing_like_it=5",
            ["evaluate.nothing_like_it: unknown key (given: 5); allowed here: window, stride, batch_size"],
        ),
        ("distill_proxy.lr=fast", ["distill_proxy.lr: given 'fast'", "valid number"]),
        ("distill_proxy.lr=.inf", ["distill_proxy.lr: given inf", "finite number"]),
        ("distill_proxy.lr=0", ["distill_proxy.lr: given 0", "greater than 0"]),
        ("distill_proxy.mask_ratio=1.5", ["distill_proxy.mask_ratio: given 1.5", "less than or equal to 1"]),
        ("distill_proxy=3", ["distill_proxy: given 3"]),
        ("distill_proxy.image_size=[0, 64]", ["distill_proxy.image_size.0: given 0", "greater than 0"]),
        ("distill_proxy.image_size=[64]", ["distill_proxy.image_size"]),
        ("method=gdk", ["method: given 'gdk'", "'gkd', 'two-stage-mse', 'single-stage-mse', 'no-kd' or 'teacher'"]),
        ("seed=-1", ["seed: given -1", "greater than or equal to 0"]),
        ("seed=1.5", ["seed: given 1.5", "integer"]),
        ("seed=true", ["seed: given True", "a whole number is allowed"]),
        ("distill_proxy.crop_scale=[1, 0.5]", ["distill_proxy.crop_scale: given [1, 0.5]", "must not exceed"]),
        ("distill_proxy.crop_scale=[0.5, 1.5]", ["distill_proxy.crop_scale.1: given 1.5", "less than or equal to 1"]),
        ("learn_task.resize_range=[2, 1]", ["learn_task.resize_range: given [2, 1]", "must not exceed"]),
        ("data.benchmarks=[]", ["data.benchmarks: given []", "at least 1 item"]),
        ("data.root=/data", ["data: given world and root; exactly one of world, root and shards must be set"]),
        ("data.world=null", ["data: given none; exactly one of world, root and shards"]),
        ("evaluate.stride=[65, 64]", ["evaluate: stride (65, 64) exceeds window (64, 64)"]),
        ("student.options.depth=[1]", ["student.options.depth: given [1]", "a single text, number or true/false is allowed"]),
        ("distill_proxy.epochs=3", ["distill_proxy: given updates 2400 and epochs 3; exactly one must be set, the other null"]),
        ("distill_proxy.updates=null", ["distill_proxy: given updates None and epochs None; exactly one must be set"]),
        ("seed", ["--set seed: expected key=value", "such as --set distill_proxy.updates=200"]),
        ("=5", ["--set =5: expected key=value"]),
        ("seed=[1", ["--set seed=[1: the value of 'seed' is not valid YAML"]),
        ("seed.deeper=1", ["--set seed.deeper=1: 'seed' is 0, it has no keys below it"]),
    ],
)
def test_refusals_name_key_given_and_allowed_in_one_line(override: str, parts: list[str]) -> None:
    text = refusal(override)
    for part in parts:
        assert part in text


def test_every_bad_key_has_its_line() -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(None, "demo", ["seed=-1", "evaluate.batch_size=0"])
    assert sorted(line.partition(":")[0] for line in str(error.value).splitlines()) == ["evaluate.batch_size", "seed"]


def test_unknown_profiles_are_refused_with_the_known_ones() -> None:
    text = refusal(profile="dmeo")
    assert "unknown profile 'dmeo'" in text
    assert "did you mean 'demo'?" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; give --profile"),
        (b"a: [1", "not valid YAML"),
        (b"- 1\n- 2\n", "expected 'key: value' lines at the top level, found a list"),
        (b"\xff\xfe\x00", "cannot be read|not valid YAML"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as error:
        load_settings(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("")
    assert load_settings(tmp_path / "params.yaml") == Settings() == settings_from_tree(yaml.safe_load(dump_settings(Settings())))


@pytest.mark.parametrize(
    ("images", "epochs", "batch", "updates"), [(24_966, 300, 128, 58_514), (1_281_167, 100, 512, 250_227), (3, 1, 8, 1)]
)
def test_epochs_are_passes_over_however_many_images(images: int, epochs: int, batch: int, updates: int) -> None:
    section = DistillSettings(epochs=epochs, batch_size=batch, image_size=(32, 32))
    assert section.updates_for(images) == updates
    assert DistillSettings(updates=5, batch_size=batch, image_size=(32, 32)).updates_for(images) == 5
