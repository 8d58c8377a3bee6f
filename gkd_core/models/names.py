"""Tensor names of other people's checkpoints, brought to an encoder's own."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import timm
import torch
from torch import Tensor, nn

from gkd_core.errors import WeightsError

# Names under which training code keeps a network inside another: data-parallel wrappers, distillation's roles, our own.
WRAPPERS = ("module", "model", "student", "teacher", "encoder", "backbone")
BACKBONE = "backbone."


def encoder_names(
    tensors: Mapping[str, Tensor], encoder: nn.Module, arch: str, like: Callable[[], nn.Module]
) -> dict[str, Tensor]:
    """The tensors under the names that `encoder` gives them, wherever in the file its network is found.

    Looked through are the names as they are, those behind wrappers' prefixes (`module.student.backbone.` and the like), and
    what timm's own filter makes of either (original DINOv2, DINOv3, EVA-02, CLIP, SAM names). The reading that names most of the
    encoder's tensors wins. What does not belong to it keeps its name, and shows up as unexpected.

    Args:
        arch: the architecture's name in timm.
        like: builds the whole timm model that the file may be of; only asked for its names and shapes.

    Raises:
        WeightsError: two networks in the file fit equally well.
    """
    own = {name.removeprefix(BACKBONE) for name in encoder.state_dict() if name.startswith(BACKBONE)}

    def known(reading: Mapping[str, Tensor]) -> int:
        return len(own & reading.keys())

    prefixes = _prefixes(tensors)
    readings = {prefix: _flat(_behind(tensors, prefix), own) for prefix in prefixes}
    prefix, *rivals = sorted(prefixes, key=lambda prefix: known(readings[prefix]), reverse=True)
    network = readings[prefix]
    if rivals and known(network) == known(readings[rivals[0]]) > 0:
        raise WeightsError(
            f"the checkpoint holds two networks that fit, under '{prefix}' and '{rivals[0]}'; save the one you mean on its own"
        )
    if known(network) < len(own):
        for other in prefixes:
            translated = _flat(_translated(_behind(tensors, other), arch, like), own)
            if known(translated) > known(network):
                prefix, network = other, translated
    beside = _beside(tensors, prefix, encoder)
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix) and name not in beside.values()}
    return (
        {BACKBONE + name: tensor for name, tensor in network.items()}
        | {name: tensors[stored] for name, stored in beside.items()}
        | rest
    )


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Every prefix made of wrappers' names alone, the empty one first."""
    found = {"": None}
    for name in tensors:
        prefix = ""
        for part in name.split("."):
            if part not in WRAPPERS:
                break
            prefix += f"{part}."
            found[prefix] = None
    return list(found)


def _behind(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _beside(tensors: Mapping[str, Tensor], prefix: str, encoder: nn.Module) -> dict[str, str]:
    """The encoder's own tensors that are not its backbone's (the mask token), by their names in the file."""
    if not prefix.endswith(BACKBONE):
        return {}
    outer = prefix.removesuffix(BACKBONE)
    names = (name for name in encoder.state_dict() if not name.startswith(BACKBONE))
    return {name: outer + name for name in names if outer + name in tensors}


def _flat(tensors: Mapping[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """timm joins the first two parts of names in feature pyramids: `stages.0.x` is `stages_0.x` there."""

    def flat(name: str) -> str:
        joined = name.replace(".", "_", 1)
        return joined if name not in own and joined in own else name

    return {flat(name): tensor for name, tensor in tensors.items()}


def _translated(tensors: dict[str, Tensor], arch: str, like: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """What timm's own filter makes of the names; nothing where it has none for this architecture or cannot read them."""
    module = importlib.import_module(timm.model_entrypoint(arch).__module__)
    translate = getattr(module, "checkpoint_filter_fn", None)
    if translate is None or not tensors:
        return {}
    options = {"adapt_layer_scale": True} if "adapt_layer_scale" in inspect.signature(translate).parameters else {}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints names that it looked for in vain
            return dict(translate(tensors, _WithoutGrid(like(), tensors), **options))
    except (KeyError, AttributeError, RuntimeError, TypeError, ValueError):
        # The filter expects checkpoints of its own family: that this is none, the coverage report says better.
        return {}


class _WithoutGrid:
    """Stands in for the model in timm's filter, which would resize grids by a method of its own; `fit_grid` does so later."""

    pos_embed = None

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        self._model = model
        stem = getattr(getattr(model, "patch_embed", None), "proj", None)
        kernels = [tensor for tensor in tensors.values() if tensor.ndim == 4 and tensor.shape[1] == 3]
        weight = kernels[0] if kernels else getattr(stem, "weight", torch.empty(0))
        self.patch_embed = SimpleNamespace(proj=SimpleNamespace(weight=weight), grid_size=None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
