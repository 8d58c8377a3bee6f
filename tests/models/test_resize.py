"""Grids: the authors' resize against their own numbers, and what any resize must keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gkd_core.models.resize import ResizeMethod, fit_grid, table_grids
from gkd_core.models.weights import load_into

CASES = ["dinov2_518p14_to_512p16", "vit_224p16_to_224p14", "deit_distilled_224p16_to_224p14", "vit_224p14_to_512p16"]
METHODS: tuple[ResizeMethod, ...] = ("released", "preserving")


@pytest.fixture(scope="session")
def golden(official: Path) -> dict[str, Tensor]:
    arrays = np.load(official / "resize_official.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.mark.parametrize("prefix", ["", "student.backbone."])
@pytest.mark.parametrize("case", CASES)
def test_released_agrees_with_the_authors_numbers(golden: dict[str, Tensor], case: str, prefix: str) -> None:
    table, kernel = f"{prefix}pos_embed", f"{prefix}patch_embed.proj.weight"
    tensors = {table: golden[f"{case}/in/pos_embed"], kernel: golden[f"{case}/in/patch_embed"]}
    expected = {table: golden[f"{case}/out/pos_embed"], kernel: golden[f"{case}/out/patch_embed"]}
    fitted, resized = fit_grid(tensors, {name: torch.zeros_like(tensor) for name, tensor in expected.items()}, "released")
    assert resized == (table, kernel)
    for name, tensor in expected.items():
        torch.testing.assert_close(fitted[name], tensor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_size_is_the_identity(method: ResizeMethod) -> None:
    tensors = {"pos_embed": torch.rand(1, 17, 4), "patch_embed.proj.weight": torch.rand(4, 3, 8, 8), "other": torch.rand(2)}
    fitted, resized = fit_grid(tensors, tensors, method)
    assert resized == ()
    assert all(fitted[name] is tensor for name, tensor in tensors.items())


def smooth(rows: int, columns: int) -> Tensor:
    """Two channels that say where an entry is, as shares of the sides: what a resize must not move."""
    y = (torch.arange(rows) + 0.5) / rows
    x = (torch.arange(columns) + 0.5) / columns
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(1, rows * columns, 2)


@pytest.mark.parametrize("method", METHODS)
def test_places_stay_where_they_are(method: ResizeMethod) -> None:
    old, new = smooth(12, 12), smooth(20, 20)
    fitted = fit_grid({"pos_embed": old}, {"pos_embed": torch.zeros_like(new)}, method)[0]["pos_embed"]
    inner = (slice(None), slice(3, 17), slice(3, 17))
    torch.testing.assert_close(fitted.unflatten(1, (20, 20))[inner], new.unflatten(1, (20, 20))[inner], atol=1e-2, rtol=0)


def test_tables_that_are_not_square_keep_their_aspect() -> None:
    old, new = smooth(6, 18), smooth(10, 30)
    grids = {"pos_embed": (10, 30)}
    fitted = fit_grid({"pos_embed": old}, {"pos_embed": torch.zeros_like(new)}, "released", grids)[0]["pos_embed"]
    inner = (slice(None), slice(3, 7), slice(5, 25))
    torch.testing.assert_close(fitted.unflatten(1, (10, 30))[inner], new.unflatten(1, (10, 30))[inner], atol=1e-2, rtol=0)
    square = fit_grid({"pos_embed": smooth(12, 12)}, {"pos_embed": torch.zeros_like(new)}, "released", grids)[0]["pos_embed"]
    torch.testing.assert_close(square.unflatten(1, (10, 30))[inner], new.unflatten(1, (10, 30))[inner], atol=1e-2, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_prefix_entries_are_kept_as_they_are(method: ResizeMethod) -> None:
    table = torch.rand(1, 5 + 16, 4)
    tokens = {"cls_token": torch.zeros(1, 1, 4), "reg_token": torch.zeros(1, 4, 4)}
    reference = tokens | {"pos_embed": torch.zeros(1, 5 + 36, 4)}
    fitted, resized = fit_grid(tokens | {"pos_embed": table}, reference, method)
    assert resized == ("pos_embed",)
    assert torch.equal(fitted["pos_embed"][:, :5], table[:, :5])
    patches = {"pos_embed": table[:, 5:]}
    alone = fit_grid(patches, {"pos_embed": torch.zeros(1, 36, 4)}, method)[0]["pos_embed"]
    assert torch.equal(fitted["pos_embed"][:, 5:], alone)


def test_the_distillation_entry_goes_only_where_the_token_goes() -> None:
    distilled = {"cls_token": torch.zeros(1, 1, 4), "dist_token": torch.zeros(1, 1, 4), "pos_embed": torch.rand(1, 18, 4)}
    plain = {"cls_token": torch.zeros(1, 1, 4), "pos_embed": torch.rand(1, 17, 4)}
    fitted, resized = fit_grid(distilled, plain, "released")
    assert resized == ("pos_embed",)
    assert torch.equal(fitted["pos_embed"], torch.cat([distilled["pos_embed"][:, :1], distilled["pos_embed"][:, 2:]], dim=1))
    assert fit_grid(plain, distilled, "released")[1] == (), "an entry that is not there cannot be made up"


def test_a_class_entry_is_not_lost_in_silence() -> None:
    """A model with a class token but no entry for it would compute something else with the entry cut off."""
    entry = {"cls_token": torch.zeros(1, 1, 4), "pos_embed": torch.rand(1, 17, 4)}
    no_entry = {"cls_token": torch.zeros(1, 1, 4), "pos_embed": torch.rand(1, 36, 4)}
    assert fit_grid(entry, no_entry, "released")[1] == ()


@pytest.mark.parametrize("factor", [2, 3])
def test_preserving_kernels_answer_a_larger_image_alike(factor: int) -> None:
    """The property that names it: upsample image and patch alike, and the patch's embedding stays (FlexiViT, eq. 3)."""
    kernel, image = torch.rand(4, 3, 8, 8), torch.rand(2, 3, 8, 8)
    large = nn.functional.interpolate(image, scale_factor=factor, mode="bicubic", antialias=True)
    tensors = {"patch_embed.proj.weight": kernel}
    reference = {"patch_embed.proj.weight": torch.zeros(4, 3, 8 * factor, 8 * factor)}
    answers = {}
    for method in METHODS:
        resized = fit_grid(tensors, reference, method)[0]["patch_embed.proj.weight"]
        answers[method] = (nn.functional.conv2d(large, resized) - nn.functional.conv2d(image, kernel)).abs().max()
    assert answers["preserving"] < 1e-2 < answers["released"]


def test_sams_tables_are_maps_and_lines() -> None:
    tensors = {"pos_embed": smooth(4, 8).unflatten(1, (4, 8)), "blocks.0.attn.rel_pos_h": torch.linspace(-3, 3, 7)[:, None]}
    reference = {"pos_embed": torch.zeros(1, 8, 16, 2), "blocks.0.attn.rel_pos_h": torch.zeros(15, 1)}
    fitted, resized = fit_grid(tensors, reference, "released")
    assert resized == tuple(tensors)
    inner = (slice(None), slice(2, 6), slice(3, 13))
    torch.testing.assert_close(fitted["pos_embed"][inner], smooth(8, 16).unflatten(1, (8, 16))[inner], atol=0.03, rtol=0)
    line = fitted["blocks.0.attn.rel_pos_h"][:, 0]
    assert line[7].item() == pytest.approx(0, abs=1e-6)
    assert bool((line.diff() >= 0).all())


def test_half_precision_stays_half_precision() -> None:
    fitted = fit_grid({"pos_embed": torch.rand(1, 16, 4).half()}, {"pos_embed": torch.zeros(1, 36, 4)}, "released")[0]
    assert fitted["pos_embed"].dtype == torch.float16


class Model(nn.Module):
    """The smallest thing with a grid."""

    def __init__(self, patch: int, rows: int, columns: int) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, 4, patch, patch)
        self.patch_embed.grid_size = (rows, columns)  # type: ignore[assignment]
        self.cls_token = nn.Parameter(torch.rand(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.rand(1, 1 + rows * columns, 4))


def test_loading_resizes_and_reports_it() -> None:
    source, target = Model(14, 6, 6), nn.ModuleDict({"student": Model(16, 4, 9)})
    assert table_grids(target) == {"student.pos_embed": (4, 9)}
    state = {f"student.{name}": tensor for name, tensor in source.state_dict().items()}
    coverage = load_into(target, state, "file")
    # 37 entries on either side: a table of the same length is taken to have the same layout.
    assert coverage.resized == ("student.patch_embed.proj.weight",)
    target = nn.ModuleDict({"student": Model(16, 4, 12)})
    coverage = load_into(target, state, "file", resize="preserving")
    assert set(coverage.resized) == {"student.pos_embed", "student.patch_embed.proj.weight"}
    assert str(coverage) == "4 loaded (2 of them resized), 0 missing, 0 of another shape, 0 unexpected"
    assert torch.equal(target.state_dict()["student.pos_embed"][:, 0], source.pos_embed[:, 0])
