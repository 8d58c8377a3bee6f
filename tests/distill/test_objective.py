"""Objectives of stage one: what they add up to, and what each part of them trains."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from gkd_core.distill.objective import DistillBatch, LossWeights, MSEObjective, QSDObjective, draws_of_its_own, qsd_losses
from gkd_core.distill.views import draw_masks
from gkd_core.distill.warm_start import QUERY_LOSSES
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder, Tokens
from gkd_core.seeding import generator
from gkd_core.settings import EncoderSettings
from gkd_core.settings.distill import QueryStart

TEACHER_DIM = 20


@pytest.fixture
def batch() -> DistillBatch:
    draws = generator("batch")
    images = torch.rand(6, 3, 32, 32, generator=draws)
    teacher = Tokens(torch.randn(6, TEACHER_DIM, generator=draws), torch.randn(6, 16, TEACHER_DIM, generator=draws))
    return DistillBatch(images, draw_masks(6, 16, 0.5, 0.5, draws), teacher, warm_up=False)


def objective_of(student: Encoder, weights: LossWeights | None = None, queries: QueryStart = "matching") -> QSDObjective:
    torch.manual_seed(1)
    nn.init.normal_(student.get_parameter("mask_token"))
    return QSDObjective(student, TEACHER_DIM, weights=weights, query_loss=QUERY_LOSSES[queries]).eval()


def test_one_and_a_half_views_equal_the_two_released_ones(vit: Encoder, batch: DistillBatch) -> None:
    """The released code runs the whole masked view, its second half clean, as a pass of its own."""
    objective = objective_of(vit)
    no_mask = torch.zeros(6 - batch.masks.shape[0], 16, dtype=torch.bool)
    masked_view = vit.tokens(batch.images, torch.cat([batch.masks, no_mask])).patches
    expected = qsd_losses(objective.token, objective.fea, objective.patch, vit.tokens(batch.images), masked_view, batch.teacher)
    losses = objective(batch)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(losses["loss"], torch.stack(list(expected.values())).sum())
    clean = qsd_losses(
        objective.token, objective.fea, objective.patch, vit.tokens(batch.images), vit.tokens(batch.images).patches, batch.teacher
    )
    assert abs(clean["loss_mask"] - losses["loss_mask"]) > 1e-4, "the mask makes no difference, so this test could not fail"


def test_without_masked_images_the_masked_view_is_the_clean_one(vit: Encoder, batch: DistillBatch) -> None:
    objective = objective_of(vit)
    losses = objective(DistillBatch(batch.images, batch.masks[:0], batch.teacher, warm_up=False))
    patches = vit.tokens(batch.images).patches
    expected = nn.functional.mse_loss(objective.patch(patches, batch.teacher.patches), batch.teacher.patches)
    torch.testing.assert_close(losses["loss_mask"], expected)


def test_weights_scale_their_losses(vit: Encoder, batch: DistillBatch) -> None:
    losses = objective_of(vit, LossWeights(cls=2.0, feat=0.0, mask=0.5))(batch)
    torch.testing.assert_close(losses["loss"], 2 * losses["loss_cls"] + 0.5 * losses["loss_mask"])


def warm(batch: DistillBatch) -> DistillBatch:
    return dataclasses.replace(batch, warm_up=True)


@pytest.mark.parametrize("queries", list(QUERY_LOSSES))
def test_warm_up_trains_what_attention_needs_in_every_head(vit: Encoder, batch: DistillBatch, queries: QueryStart) -> None:
    objective = objective_of(vit, queries=queries)
    objective(warm(batch))["loss"].backward()
    still = {name for name, p in objective.named_parameters() if p.grad is None or not p.grad.any()}
    # A cls token is alone, so there is nothing that its query could be matched with.
    single_key = {f"token.proj_q.{name}" for name, _ in objective.token.proj_q.named_parameters()}
    assert still == (single_key if queries == "matching" else set())


def test_a_student_that_warms_up_by_matching_learns_from_the_values_alone(vit: Encoder, batch: DistillBatch) -> None:
    """As if attention were the identity: its gradient is that of plain MSE through psi, in all three heads."""
    objective = objective_of(vit)
    losses = objective(warm(batch))
    assert losses["loss_queries"] > 0
    losses["loss"].backward()
    gradients = [p.grad for p in vit.parameters()]
    vit.zero_grad()

    no_mask = torch.zeros(6 - batch.masks.shape[0], 16, dtype=torch.bool)
    clean, masked = vit.tokens(batch.images), vit.tokens(batch.images, torch.cat([batch.masks, no_mask]))
    pairs = (
        (objective.token, clean.cls, batch.teacher.cls),
        (objective.fea, clean.patches, batch.teacher.patches),
        (objective.patch, masked.patches, batch.teacher.patches),
    )
    torch.stack([nn.functional.mse_loss(head.proj_v(student), target) for head, student, target in pairs]).sum().backward()
    for ours, parameter in zip(gradients, vit.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("queries", list(QUERY_LOSSES))
def test_after_the_warm_start_the_loss_is_the_published_one(vit: Encoder, batch: DistillBatch, queries: QueryStart) -> None:
    published = objective_of(vit)(batch)
    ours = objective_of(vit, queries=queries)(batch)
    assert all(torch.equal(ours[name], published[name]) for name in published)


@pytest.mark.parametrize("queries", list(QUERY_LOSSES))
def test_warm_up_learns_what_attention_needs(vit: Encoder, batch: DistillBatch, queries: QueryStart) -> None:
    """After the warm start more weight lies on the matching token than chance."""
    objective = objective_of(vit, queries=queries)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    before = objective.observe(batch)
    for _ in range(30):
        optimizer.zero_grad()
        objective(warm(batch))["loss"].backward()
        optimizer.step()
    after = objective.observe(batch)
    assert after["matching_weight"] > 3 / 16
    assert after["matching_weight"] > before["matching_weight"]


def test_mse_objective_looks_at_patches_alone(vit: Encoder, batch: DistillBatch) -> None:
    torch.manual_seed(0)
    objective = MSEObjective(vit, TEACHER_DIM)
    answer = objective.proj(vit.tokens(batch.images).patches)
    torch.testing.assert_close(objective(batch)["loss"], (answer - batch.teacher.patches).square().mean())
    other_cls = DistillBatch(batch.images, batch.masks, batch.teacher._replace(cls=batch.teacher.cls + 1), warm_up=True)
    assert torch.equal(objective(batch)["loss"], objective(other_cls)["loss"])


def test_a_look_at_the_attention_changes_nothing(batch: DistillBatch) -> None:
    """A CNN in training mode has batch statistics, which every pass would move."""
    objective = QSDObjective(build_encoder(EncoderSettings(arch="resnet10t"), 0), TEACHER_DIM).train()
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    images = torch.rand(2, 3, 64, 64)
    teacher = Tokens(torch.randn(2, TEACHER_DIM), torch.randn(2, 16, TEACHER_DIM))
    objective.observe(DistillBatch(images, batch.masks[:1], teacher, warm_up=False))
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state_dict().items())
    assert all(module.training for module in objective.modules())


def test_a_student_that_draws_of_its_own_sees_all_of_both_views(vit_settings: EncoderSettings, batch: DistillBatch) -> None:
    """With drop path the clean rest of the masked view is not the clean view, so it cannot be taken from there."""
    student = build_encoder(vit_settings.model_copy(update={"options": {**vit_settings.options, "drop_path_rate": 0.5}}), 0)
    objective = QSDObjective(student, TEACHER_DIM).train()
    assert draws_of_its_own(student)
    clean, masked = objective._views(batch)
    assert masked.shape == clean.patches.shape
    assert not torch.equal(masked[-1], clean.patches[-1])
    objective.eval()
    assert not draws_of_its_own(student)
    clean, masked = objective._views(batch)
    assert torch.equal(masked[-1], clean.patches[-1])


@pytest.mark.parametrize("kind", [QSDObjective, MSEObjective])
def test_heads_and_losses_are_float32_in_mixed_precision(vit: Encoder, batch: DistillBatch, kind: Any) -> None:
    torch.manual_seed(0)
    objective = kind(vit, TEACHER_DIM).eval()
    exact = objective(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = objective(batch)
    assert {value.dtype for value in mixed.values()} == {torch.float32}
    for name, value in exact.items():
        torch.testing.assert_close(mixed[name], value, atol=0.05, rtol=0.05)
        assert not torch.equal(mixed[name], value), "the student did work in bfloat16"
