"""The settings tree: every number of the recipe, one section a stage.

`params.yaml` is this tree written out, so that DVC can track it. Where a default has a source in the paper
or the authors' release, the field says so; profiles overlay these defaults.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gkd_core.errors import SettingsError

MethodName = Literal["gkd", "two-stage-mse", "single-stage-mse", "no-kd", "teacher"]


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise ValueError("a single text, number or true/false is allowed")
    return value


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a whole number is allowed, not true or false")
    return value


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the first number must not exceed the second")
    return pair


Scalar = Annotated[str | int | float | bool, BeforeValidator(_scalar)]
PositiveInt = Annotated[int, Field(gt=0), BeforeValidator(_no_truth)]
NonNegativeInt = Annotated[int, Field(ge=0), BeforeValidator(_no_truth)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A frozen group of settings that knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True, allow_inf_nan=False)


class WorldSettings(Section):
    """Sizes of the embedded world that `prepare-data` renders."""

    seed: NonNegativeInt = Field(7, description="Seed of every scene and style; the world is a pure function of this section.")
    street_size: tuple[PositiveInt, PositiveInt] = Field((64, 128), description="Street images, (height, width) in pixels.")
    aerial_size: tuple[PositiveInt, PositiveInt] = Field((64, 64), description="Aerial tiles, (height, width) in pixels.")
    proxy_images: PositiveInt = Field(640, description="Unlabelled proxy images (street and aerial, broad random styles).")
    train_images: PositiveInt = Field(160, description="Labelled training images of each source domain.")
    val_images: PositiveInt = Field(40, description="Labelled validation images of each source domain.")
    target_images: PositiveInt = Field(40, description="Labelled images of each target domain.")


class DataSettings(Section):
    """Which datasets take part, and where they lie. Read by `prepare-data` and by every stage that reads images."""

    world: WorldSettings | None = Field(
        default=WorldSettings(), description="The embedded world to render; null when real datasets are used."
    )
    root: str | None = Field(None, description="Folder that holds the real datasets; null when the world is used.")
    catalogs: tuple[str, ...] = Field(
        (), description="YAML files with further dataset entries; a bare name is one shipped with the package."
    )
    proxy: str = Field("proxy/all", description="Unlabelled proxy images of stage 1a, as dataset/split of the catalog.")
    benchmarks: tuple[str, ...] = Field(
        ("G2C", "G2B", "G2M", "C2A", "P2R"),
        min_length=1,
        description="Benchmarks to evaluate; their sources are what is learnt from.",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> DataSettings:
        if (self.world is None) == (self.root is None):
            given = "neither" if self.world is None else "both"
            raise ValueError(f"given {given} of world and root; exactly one must be set, the other null")
        return self


class EncoderSettings(Section):
    """One encoder: a timm architecture, its weights, and the grid that it sees."""

    arch: str = Field(description="Architecture name as timm knows it, such as vit_small_patch14_dinov2.")
    weights: str = Field(
        "random",
        description="'random', 'hub' (timm's own, needs the internet), 'demo' (shipped with the package), "
        "'package:NAME' (an installed weights package), or the path of a .safetensors or .pth file.",
    )
    patch_size: PositiveInt | None = Field(None, description="Patch side in pixels for a ViT; null keeps the architecture's.")
    image_size: PositiveInt | None = Field(
        None, description="Image side in pixels that the position table is laid out for; null keeps the architecture's."
    )
    token_strides: tuple[PositiveInt, ...] = Field(
        (16,), min_length=1, description="CNN only: strides of the maps joined, at stride 16, into the patch tokens."
    )
    options: dict[str, Scalar] = Field(
        default_factory=dict, description="Further arguments of the architecture, such as depth or embed_dim."
    )
    min_coverage: Share = Field(1.0, description="Least share of the model's tensors that a weights file must fill.")


class WarmStartSettings(Section):
    """Warm start of the QSD heads: plain MSE through their value projections for the first updates."""

    updates: NonNegativeInt = Field(0, description="Updates before the attention is switched on; 0 is the published form.")


class DistillSettings(Section):
    """One step of stage one (1a or 1b)."""

    updates: NonNegativeInt = Field(description="Optimizer updates.")
    batch_size: PositiveInt = Field(description="Images in one update, over all workers together.")
    image_size: tuple[PositiveInt, PositiveInt] = Field(description="Training crop, (height, width) in pixels.")
    lr: PositiveFloat = Field(5e-4, description="Peak AdamW learning rate at a batch of lr_batch images (released: 5e-4 at 512).")
    lr_batch: PositiveInt | None = Field(512, description="Batch that lr is stated for, scaled linearly; null uses lr as it is.")
    min_lr: PositiveFloat = Field(1e-5, description="Learning rate at the end of the cosine.")
    warmup_updates: NonNegativeInt = Field(0, description="Updates of linear warm-up (released: 0).")
    weight_decay: float = Field(0.05, ge=0, description="AdamW weight decay; none for norms, biases and single tokens.")
    clip_norm: PositiveFloat | None = Field(None, description="Largest global gradient norm; null does not clip.")
    crop_scale: Annotated[tuple[PositiveShare, PositiveShare], AfterValidator(_ascending)] = Field(
        (0.08, 1.0), description="Area of a random resized crop, as a share of the image."
    )
    color_jitter: float = Field(0.3, ge=0, description="Strength of random brightness, contrast and saturation.")
    num_heads: PositiveInt = Field(1, description="Heads of the QSD attention (released: 1).")
    cls_weight: float = Field(1.0, ge=0, description="Weight of the cls loss (released: 1).")
    feat_weight: float = Field(1.0, ge=0, description="Weight of the feature loss (released: 1).")
    mask_weight: float = Field(1.0, ge=0, description="Weight of the masked-view loss (released: 1).")
    mask_probability: Share = Field(0.5, description="Share of the batch, its first images, that is masked (released: 0.5).")
    mask_ratio: Share = Field(0.5, description="Share of a masked image's patches that are hidden (released: 0.5).")
    warm_start: WarmStartSettings = Field(WarmStartSettings(), description="Warm start of the QSD heads.")
    checkpoint_every: PositiveInt = Field(1000, description="Updates between two checkpoints.")
    log_every: PositiveInt = Field(50, description="Updates between two lines of metrics.")


class LearnTaskSettings(Section):
    """Stage two: the decoder, on the source domain's labels."""

    updates: PositiveInt = Field(40_000, description="Optimizer updates (paper: 40 000).")
    batch_size: PositiveInt = Field(4, description="Images in one update (paper: 4).")
    image_size: tuple[PositiveInt, PositiveInt] = Field(
        (512, 512), description="Training crop, (height, width) in pixels (paper: 512 × 512)."
    )
    decoder: Literal["linear", "segformer"] = Field(
        "segformer", description="linear: a classifier on the patch tokens; segformer: an MLP head on four feature maps."
    )
    decoder_width: PositiveInt = Field(256, description="Channels inside the decoder.")
    lr: PositiveFloat = Field(1e-4, description="AdamW learning rate of the decoder (paper: 1e-4).")
    encoder_lr: PositiveFloat = Field(1e-4, description="AdamW learning rate of the encoder, for methods that train it here.")
    weight_decay: float = Field(0.05, ge=0, description="AdamW weight decay; none for norms and biases (paper: 0.05).")
    poly_power: PositiveFloat = Field(0.9, description="Power of the polynomial decay of the learning rate (paper: 0.9).")
    distill_weight: float = Field(
        1.0, ge=0, description="Weight of the distillation loss beside the task loss, for single-stage methods."
    )
    resize_range: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_ascending)] = Field(
        (0.5, 2.0), description="Random scale before the crop (paper: 0.5 to 2)."
    )
    cat_max_ratio: Share = Field(
        0.75, description="Largest share of a crop that one class may fill, tried ten times (paper: 0.75)."
    )
    color_jitter: float = Field(0.3, ge=0, description="Strength of random brightness, contrast and saturation.")
    end_to_end_updates: PositiveInt | None = Field(
        None,
        description="Updates for methods that train the encoder here; null gives them the sum of all stages' updates, "
        "so that budgets match.",
    )
    checkpoint_every: PositiveInt = Field(1000, description="Updates between two checkpoints.")
    log_every: PositiveInt = Field(50, description="Updates between two lines of metrics.")


class EvaluateSettings(Section):
    """The cross-domain matrix. A dataset entry's own protocol (input size) applies first."""

    window: tuple[PositiveInt, PositiveInt] = Field(
        (512, 512), description="Sliding window, (height, width) in pixels (released: 512)."
    )
    stride: tuple[PositiveInt, PositiveInt] = Field((341, 341), description="Step of the window in pixels (released: 341).")
    batch_size: PositiveInt = Field(8, description="Windows in one forward pass; changes speed only.")

    @model_validator(mode="after")
    def _no_gaps(self) -> EvaluateSettings:
        if any(step > side for step, side in zip(self.stride, self.window, strict=True)):
            raise ValueError(f"stride {self.stride} exceeds window {self.window}: pixels between windows would have no score")
        return self


class ComputeSettings(Section):
    """The machine that does the work."""

    workers: NonNegativeInt = Field(2, description="Ray Train workers of stage one; 0 trains in this process.")
    threads: PositiveInt = Field(
        1, description="Threads of one training process. Part of the result: a sum's order depends on it."
    )
    stages_at_once: PositiveInt = Field(
        1, description="Stages of one kind (one a source) that the flow runs side by side; Ray's run one by one."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device of the tensors; auto takes a GPU where there is one."
    )
    max_failures: NonNegativeInt = Field(2, description="Times that a lost Ray worker group is rebuilt before the stage fails.")


class TrackingSettings(Section):
    """MLflow. The store's address comes from MLFLOW_TRACKING_URI where that is set."""

    experiment: str = Field("gkd", min_length=1, description="MLflow experiment.")
    uri: str | None = Field(
        None,
        description="Tracking store, such as sqlite:///mlflow.db; null is a file of the project. Never put a password here.",
    )


class Settings(Section):
    """All settings of one run."""

    recipe_version: PositiveInt = Field(
        1, description="Raised when the code changes what a stage computes, so that DVC runs every stage anew."
    )
    method: MethodName = Field(
        "gkd", description="gkd, a rival under the same budget, or 'teacher' (a decoder on the frozen teacher)."
    )
    seed: NonNegativeInt = Field(0, description="Seed of initial weights, batches, crops and masks.")
    data: DataSettings = Field(DataSettings(), description="Datasets.")
    teacher: EncoderSettings = Field(
        EncoderSettings(arch="vit_base_patch14_dinov2", weights="hub"), description="The foundation model."
    )
    student: EncoderSettings = Field(
        EncoderSettings(arch="deit_small_patch16_224", weights="hub"), description="The model that is distilled."
    )
    distill_proxy: DistillSettings = Field(
        DistillSettings(updates=250_000, batch_size=512, image_size=(224, 224)),
        description="Stage 1a, on proxy images (released: 100 epochs).",
    )
    distill_source: DistillSettings = Field(
        DistillSettings(updates=58_500, batch_size=128, image_size=(512, 512)),
        description="Stage 1b, on the source's images (released: 300 epochs).",
    )
    learn_task: LearnTaskSettings = Field(LearnTaskSettings(), description="Stage two.")
    evaluate: EvaluateSettings = Field(EvaluateSettings(), description="The cross-domain matrix.")
    compute: ComputeSettings = Field(ComputeSettings(), description="The machine.")
    tracking: TrackingSettings = Field(TrackingSettings(), description="MLflow.")


PROFILES = resources.files("gkd_core") / "profiles"


def profile_names() -> list[str]:
    """Names of the profiles shipped with the package, in alphabetical order."""
    return sorted(entry.name.removesuffix(".yaml") for entry in PROFILES.iterdir() if entry.name.endswith(".yaml"))


def load_settings(params: Path | None = None, profile: str | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Read the settings of one run.

    The tree starts from the defaults overlaid by `profile` where one is named, else from the file `params`
    (missing keys keep their defaults); `overrides` of the form `a.b=value` go on top, their values read as YAML.

    Raises:
        SettingsError: a file cannot be read, or a key is unknown, of the wrong type or impossible.
    """
    tree = Settings().model_dump(mode="json")
    if profile is not None:
        tree = _fill(tree, _read_profile(profile))
    elif params is not None:
        tree = _fill(tree, read_yaml_mapping(params))
    for override in overrides:
        _apply_override(tree, override)
    return settings_from_tree(tree)


def settings_from_tree(tree: Mapping[str, Any]) -> Settings:
    """Validate a plain mapping into `Settings`; `SettingsError` has one line for each bad key."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("\n".join(_describe(item) for item in error.errors())) from None


def dump_settings(settings: Settings) -> str:
    """The whole tree as YAML, in the order of the fields; `load_settings` reads it back unchanged."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping (an empty file gives an empty one)."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: no such file; give --profile ({', '.join(profile_names())}) or run where params.yaml lies"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: expected 'key: value' lines at the top level, found a {type(tree).__name__}")
    return tree


def _read_profile(name: str) -> dict[str, Any]:
    if name not in profile_names():
        raise SettingsError(
            f"--profile: unknown profile '{name}'; allowed: {', '.join(profile_names())}{_hint(name, profile_names())}"
        )
    with resources.as_file(PROFILES / f"{name}.yaml") as path:
        return read_yaml_mapping(path)


def _fill(defaults: dict[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with every leaf of `overlay` put over it; free-form mappings (`options`) are replaced whole."""
    filled = dict(defaults)
    for key, value in overlay.items():
        below = filled.get(key)
        nested = isinstance(value, Mapping) and isinstance(below, dict) and key != "options"
        filled[key] = _fill(below, value) if nested and isinstance(below, dict) else value
    return filled


def _apply_override(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted.strip():
        raise SettingsError(f"--set {override}: expected key=value, such as --set distill_proxy.updates=200")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(f"--set {override}: the value of '{dotted}' is not valid YAML; quote it") from None
    *parents, leaf = dotted.strip().split(".")
    node = tree
    for depth, parent in enumerate(parents):
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise SettingsError(f"--set {override}: '{'.'.join(parents[: depth + 1])}' is {child!r}, it has no keys below it")
        node = child
    node[leaf] = value


def _describe(item: Mapping[str, Any]) -> str:
    """One line for one pydantic error: the key, what was given, what is allowed."""
    key = ".".join(str(part) for part in item["loc"])
    given = item.get("input")
    if item["type"] == "extra_forbidden":
        siblings = _siblings(item["loc"])
        return (
            f"{key}: unknown key (given: {given!r}); allowed here: {', '.join(siblings)}{_hint(str(item['loc'][-1]), siblings)}"
        )
    shown = "a group of keys" if isinstance(given, dict) else repr(given)
    if item["type"] == "value_error":
        return f"{key}: {item['ctx']['error']}" if isinstance(given, dict) else f"{key}: given {shown}; {item['ctx']['error']}"
    return f"{key}: given {shown}; {item['msg'][0].lower()}{item['msg'][1:]}"


def _siblings(location: tuple[Any, ...]) -> list[str]:
    node: Any = Settings
    for part in location[:-1]:
        field = node.model_fields.get(part) if isinstance(node, type) and issubclass(node, BaseModel) else None
        if field is None:
            return []
        node = next((kind for kind in _kinds(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return list(node.model_fields) if isinstance(node, type) and issubclass(node, BaseModel) else []


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", None) or (annotation,)


def _hint(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
