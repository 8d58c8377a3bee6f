"""Tensors that belong to a grid, brought to another one: patch kernels, position tables, relative-position tables.

This happens once, when weights are loaded. At forward time a position table is resampled whenever an image's grid is not the
one that the table is laid out for: by timm, antialiased bicubic, or as the authors' backbones do it (`sight_table`). With
`image_size` set to the images that a step sees, that never happens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional

ResizeMethod = Literal["released", "preserving"]
Size = tuple[int, int]

# What the authors' backbones (DINOv2's) add to the patches along a side before they divide: it keeps a scale factor that is not
# exact from giving one patch too few, and moves every place a little.
SIGHT_OFFSET = 0.1

# Entries that a table may hold before the patches' own, where the tokens stored beside it do not tell.
USUAL_PREFIXES = (1, 0, 2)


class Layout(NamedTuple):
    """A position table's entries: `prefix` of them for tokens that are no patch, then rows × columns."""

    prefix: int
    rows: int
    columns: int


def fit_grid(
    tensors: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    method: ResizeMethod,
    grids: Mapping[str, Size] | None = None,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Bring the tensors of a grid to the shapes of `reference`, a state dict with the same names.

    Patch kernels (C, 3, p, p), position tables (1, L, C) or (1, rows, columns, C), and SAM's relative-position tables are
    recognised by the end of their names, whatever stands before it. Entries of a position table for prefix tokens (class,
    registers) are kept as they are; the distillation token's is dropped where the reference has no such token. What cannot
    be brought to the reference's shape is left alone, for the coverage report to name.

    Args:
        method: `released` is the authors' (bicubic, align_corners False, no antialias, for kernel and table); `preserving`
            keeps the function on resized images: the pseudo-inverse kernel (FlexiViT, Beyer et al. 2023) and antialiased
            bicubic for the table, both timm's.
        grids: rows and columns of the reference's position tables by name, for those that are not square.

    Returns:
        all tensors, and the names of those that were resized. A tensor whose shape fits already is never touched.
    """
    fitted, resized = dict(tensors), []
    for name, value in tensors.items():
        own = reference.get(name)
        if own is None or own.shape == value.shape or own.ndim != value.ndim:
            continue
        new = _resized(name, value.float(), tensors, reference, method, (grids or {}).get(name))
        if new is not None and new.shape == own.shape:
            fitted[name] = new.to(value.dtype)
            resized.append(name)
    return fitted, tuple(resized)


def table_grids(model: nn.Module) -> dict[str, Size]:
    """Rows and columns of every position table in a model, by the table's name in the state dict."""
    found = {}
    for name, module in model.named_modules():
        grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
        if grid is not None:
            found[f"{name}.pos_embed" if name else "pos_embed"] = (int(grid[0]), int(grid[1]))
    return found


def _resized(
    name: str,
    value: Tensor,
    tensors: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    method: ResizeMethod,
    grid: Size | None,
) -> Tensor | None:
    own = reference[name]
    if name.endswith("patch_embed.proj.weight") and value.ndim == 4:
        return resize_kernel(value, (own.shape[-2], own.shape[-1]), method)
    if name.rpartition(".")[2] == "pos_embed" and value.ndim == 4:
        return _resize_map(value, (own.shape[1], own.shape[2]), method)
    if name.rpartition(".")[2] == "pos_embed" and value.ndim == 3:
        layouts = _layouts(name, tensors, reference, grid)
        return None if layouts is None else resize_table(value, *layouts, method)
    if name.endswith(("attn.rel_pos_h", "attn.rel_pos_w")):
        # As SAM itself does at forward time for a grid that is not its own.
        return functional.interpolate(value.T[None], size=own.shape[0], mode="linear")[0].T
    return None


def resize_kernel(kernel: Tensor, size: Size, method: ResizeMethod) -> Tensor:
    """A patch kernel (C, 3, h, w) for patches of another size."""
    if method == "preserving":
        return resample_patch_embed(kernel, list(size))
    return functional.interpolate(kernel, size=size, mode="bicubic", align_corners=False)


def resize_table(table: Tensor, old: Layout, new: Layout, method: ResizeMethod) -> Tensor:
    """A position table (1, prefix + rows · columns, C) in another layout, whose prefix entries are the old one's first."""
    prefix, patches = table[:, : new.prefix], table[:, old.prefix :]
    grid = patches.reshape(1, old.rows, old.columns, -1)
    return torch.cat([prefix, _resize_map(grid, (new.rows, new.columns), method).flatten(1, 2)], dim=1)


def sight_table(table: Tensor, old: Layout, seen: Size) -> Tensor:
    """A position table (1, prefix + rows · columns, C) for an image of another grid, as the authors' backbones have it.

    Bicubic without antialias, by a scale factor with an offset (`SIGHT_OFFSET`), in single precision; prefix entries as they are.
    Source: the release's DINOv2 backbone, which is stage two's and that of 1a's teacher.
    """
    prefix, patches = table[:, : old.prefix], table[:, old.prefix :]
    grid = patches.float().unflatten(1, (old.rows, old.columns)).permute(0, 3, 1, 2)
    scale = ((seen[0] + SIGHT_OFFSET) / old.rows, (seen[1] + SIGHT_OFFSET) / old.columns)
    resized = functional.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat([prefix, resized.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def _resize_map(table: Tensor, size: Size, method: ResizeMethod) -> Tensor:
    """A position table as a map (1, rows, columns, C) at another size."""
    if method == "preserving":
        flat = resample_abs_pos_embed(table.flatten(1, 2), list(size), list(table.shape[1:3]), num_prefix_tokens=0)
        return flat.unflatten(1, size)
    channels_first = table.permute(0, 3, 1, 2)
    return functional.interpolate(channels_first, size=size, mode="bicubic", align_corners=False).permute(0, 2, 3, 1)


def _layouts(
    name: str, tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor], grid: Size | None
) -> tuple[Layout, Layout] | None:
    """Layouts of a position table in the file and in the reference; None where the one cannot be made into the other."""
    length, wanted = tensors[name].shape[1], reference[name].shape[1]
    stored, own = _prefix_tokens(name, tensors), _prefix_tokens(name, reference)
    new = Layout(wanted - math.prod(grid), *grid) if grid else _layout(wanted, (own, *USUAL_PREFIXES), (1, 1))
    if new is None:
        return None
    old = _layout(length, (new.prefix, stored, *USUAL_PREFIXES), (new.rows, new.columns))
    # A table without the class token's entry is no other's with that entry cut off: the entry would have to go into the token.
    cut_from_a_token = old is not None and old.prefix > new.prefix and own > new.prefix
    return None if old is None or old.prefix < new.prefix or cut_from_a_token else (old, new)


def _prefix_tokens(name: str, tensors: Mapping[str, Tensor]) -> int:
    """Number of class, distillation and register tokens stored beside a position table."""
    beside = name.removesuffix("pos_embed")
    stored = (tensors.get(beside + token) for token in ("cls_token", "dist_token", "reg_token"))
    return sum(token.shape[1] for token in stored if token is not None)


def _layout(length: int, prefixes: Iterable[int], aspect: Size) -> Layout | None:
    """The layout of a table of `length` entries: square if it can be, else of the aspect (rows, columns) given."""
    candidates = tuple(prefixes)
    for rows, columns in ((1, 1), aspect):
        for prefix in candidates:
            scale = math.sqrt(max(0, length - prefix) / (rows * columns))
            side = Layout(prefix, round(rows * scale), round(columns * scale))
            if side.rows * side.columns == length - prefix > 0:
                return side
    return None
