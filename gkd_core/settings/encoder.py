"""An encoder in a role: teacher or student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from gkd_core.settings.base import LocalPath, PositiveInt, Scalar, Section, Share

FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
NAMED_SOURCES = ("random", "hub", "demo")
HUB = "hub:"
# Arguments of timm's that read a file or fetch one: a manifest from elsewhere has options too.
LOADING = frozenset({"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"})
SCHEMES = (HUB, "package:", "models:/", "runs:/")
MLFLOW_SCHEMES = ("models:/", "runs:/")


def parse_spec(spec: str) -> dict[str, str]:
    """`ARCH@WEIGHTS` as the two fields that it stands for; `ARCH` alone means random weights.

    Raises:
        ValueError: either part is empty.
    """
    arch, at, weights = spec.partition("@")
    if not arch or (at and not weights):
        raise ValueError("an encoder in one line is ARCH@WEIGHTS, such as vit_base_patch14_dinov2@hub, or ARCH alone")
    return {"arch": arch, "weights": weights or "random"}


def _known_source(weights: str) -> str:
    if weights in NAMED_SOURCES or weights.startswith(SCHEMES) or weights.endswith(FILE_SUFFIXES):
        return weights
    raise ValueError(
        f"allowed: {', '.join(NAMED_SOURCES)}, hub:ARCH.TAG, package:NAME, a file ({', '.join(FILE_SUFFIXES)}), "
        "models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID, runs:/RUN/PATH"
    )


class EncoderSettings(Section):
    """One encoder: a timm architecture, its weights, and the grid that it sees.

    Wherever one is expected, the text `ARCH@WEIGHTS` is taken too: it sets `arch` and `weights`, and all else to its default.
    """

    arch: str = Field(description="Architecture name as timm knows it, such as vit_small_patch14_dinov2.")
    weights: Annotated[LocalPath, AfterValidator(_known_source)] = Field(
        "random",
        description="'random', 'hub' (timm's own, needs the internet), 'hub:ARCH.TAG' (timm's of another name, such as a "
        "distilled DeiT's, whose further token is dropped), 'demo' (shipped with the package), 'package:NAME' (an installed "
        "weights package), the path of a .safetensors, .pth, .pt or .bin file, or an MLflow address: "
        "models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID, runs:/RUN/PATH.",
    )
    patch_size: PositiveInt | None = Field(None, description="Patch side in pixels for a ViT; null keeps the architecture's.")
    image_size: PositiveInt | None = Field(
        None, description="Image side in pixels that the position table is laid out for; null keeps the architecture's."
    )
    token_strides: tuple[PositiveInt, ...] = Field(
        (16,), min_length=1, description="CNN only: strides of the maps joined, at stride 16, into the patch tokens."
    )
    options: dict[str, Scalar] = Field(
        default_factory=dict, description="Further arguments of the architecture, such as depth or drop_path_rate."
    )
    min_coverage: Share = Field(1.0, description="Least share of the model's tensors that a weights file must fill.")
    resize: Literal["released", "preserving"] = Field(
        "released",
        description="How loaded patch kernels and position tables reach the model's grid: 'released' (bicubic, as the authors) "
        "or 'preserving' (pseudo-inverse kernel, antialiased table, as timm).",
    )

    normalisation: Literal["own", "imagenet"] = Field(
        "own",
        description="Mean and deviation that images are normalised with. own: those that timm states for the architecture; "
        "imagenet: ImageNet's, as the release has them for every encoder, EVA-02 too.",
    )

    @field_validator("options")
    @classmethod
    def _no_loading(cls, options: dict[str, Scalar]) -> dict[str, Scalar]:
        loading = sorted(LOADING & set(options))
        if loading:
            raise ValueError(f"{loading[0]}: has timm read or fetch weights past all checks; name them by `weights`")
        return options

    @model_validator(mode="before")
    @classmethod
    def _from_spec(cls, value: Any) -> Any:
        return parse_spec(value) if isinstance(value, str) else value

    @property
    def weights_file(self) -> Path | None:
        """The file on this machine that the weights come from; None where they come from elsewhere."""
        named = self.weights in NAMED_SOURCES or self.weights.startswith(SCHEMES)
        return None if named else Path(self.weights)

    @property
    def weights_uri(self) -> str | None:
        """The MLflow address that the weights come from; None where they come from elsewhere."""
        return self.weights if self.weights.startswith(MLFLOW_SCHEMES) else None
