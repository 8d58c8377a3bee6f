"""The method's own layer, against the authors' values and against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gkd_core.distill.objective import qsd_losses
from gkd_core.distill.qsd import QuerySoftDistillation, attention_entropy, matching_weight
from gkd_core.models.encoder import Tokens

HEADS = ("token", "fea", "patch")


class Golden:
    """One golden file: three heads with the authors' weights, their inputs, and what came out."""

    def __init__(self, path: Path) -> None:
        stored = np.load(path)
        self.values = {name: torch.from_numpy(np.asarray(stored[name])) for name in stored.files}
        dims = {role: self.values[f"in/{role}_patch"].shape[-1] for role in ("student", "teacher")}
        self.heads = {
            head: QuerySoftDistillation(dims["student"], dims["teacher"], int(self.values["meta/num_heads"])) for head in HEADS
        }
        for head, module in self.heads.items():
            prefix = f"weight/{head}/"
            module.load_state_dict({name.removeprefix(prefix): v for name, v in self.values.items() if name.startswith(prefix)})

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]


@pytest.fixture(params=["a", "b"])
def golden(request: pytest.FixtureRequest, official: Path) -> Golden:
    return Golden(official / f"qsd_official_{request.param}.npz")


@torch.no_grad()
def test_outputs_equal_the_authors(golden: Golden) -> None:
    cls, teacher_cls = golden["in/student_cls"].unsqueeze(1), golden["in/teacher_cls"].unsqueeze(1)
    answers = {
        "token": golden.heads["token"](cls, teacher_cls),
        "fea": golden.heads["fea"](golden["in/student_patch"], golden["in/teacher_patch"]),
        "patch": golden.heads["patch"](golden["in/student_patch_masked"], golden["in/teacher_patch"]),
    }
    for head, answer in answers.items():
        torch.testing.assert_close(answer, golden[f"out/{head}"], atol=1e-5, rtol=0)


def test_losses_and_gradients_equal_the_authors(golden: Golden) -> None:
    inputs = {
        name: golden[f"in/{name}"].clone().requires_grad_() for name in ("student_cls", "student_patch", "student_patch_masked")
    }
    losses = qsd_losses(
        golden.heads["token"],
        golden.heads["fea"],
        golden.heads["patch"],
        Tokens(inputs["student_cls"], inputs["student_patch"]),
        inputs["student_patch_masked"],
        Tokens(golden["in/teacher_cls"], golden["in/teacher_patch"]),
    )
    total = torch.stack(list(losses.values())).sum()
    total.backward()

    for ours, theirs in (("loss_cls", "token"), ("loss_feat", "fea"), ("loss_mask", "patch")):
        torch.testing.assert_close(losses[ours], golden[f"loss/{theirs}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(total, golden["loss/total"], atol=1e-5, rtol=0)
    gradients = {f"grad/{head}/{name}": p.grad for head, module in golden.heads.items() for name, p in module.named_parameters()}
    gradients |= {f"grad/in/{name}": tensor.grad for name, tensor in inputs.items()}
    assert gradients.keys() == {name for name in golden.values if name.startswith("grad/")}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, golden[name], atol=1e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_state_dict_has_the_released_names() -> None:
    names = set(QuerySoftDistillation(6, 4).state_dict())
    assert names == {f"{head}.{layer}.{kind}" for head in ("proj_q", "proj_v") for layer in (0, 1) for kind in ("weight", "bias")}


def test_heads_work_on_separate_blocks_of_channels() -> None:
    torch.manual_seed(0)
    module = QuerySoftDistillation(student_dim=5, teacher_dim=12, num_heads=3)
    student, teacher = torch.randn(2, 7, 5), torch.randn(2, 7, 12)
    queries, values = module.proj_q(student), module.proj_v(student)
    blocks = [slice(0, 4), slice(4, 8), slice(8, 12)]
    expected = [torch.softmax(queries[..., b] @ teacher[..., b].mT, dim=-1) @ values[..., b] for b in blocks]
    torch.testing.assert_close(module(student, teacher), torch.cat(expected, dim=-1))
    assert module.attention(student, teacher).shape == (2, 3, 7, 7)


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="teacher_dim 10 is not a multiple of num_heads 3"):
        QuerySoftDistillation(4, 10, num_heads=3)


def test_a_single_key_gives_the_query_no_gradient() -> None:
    torch.manual_seed(0)
    module = QuerySoftDistillation(6, 4)
    target = torch.randn(3, 1, 4)
    (module(torch.randn(3, 1, 6), target) - target).square().mean().backward()
    assert all(p.grad is not None and not p.grad.any() for p in module.proj_q.parameters())
    assert all(p.grad is not None and p.grad.any() for p in module.proj_v.parameters())


def test_teacher_tokens_are_keys_only() -> None:
    """Values are the student's: moving every teacher token by one vector leaves the softmax, and so the answer, as it was."""
    torch.manual_seed(0)
    module = QuerySoftDistillation(6, 4)
    student, teacher = torch.randn(2, 5, 6), torch.randn(2, 5, 4)
    torch.testing.assert_close(module(student, teacher + torch.randn(4)), module(student, teacher), atol=1e-5, rtol=1e-4)


def test_entropy_and_matching_weight_at_their_extremes() -> None:
    uniform, identity = torch.full((2, 1, 8, 8), 1 / 8), torch.eye(8).expand(2, 1, 8, 8)
    elsewhere = identity.roll(1, dims=-1)
    assert attention_entropy(uniform).item() == pytest.approx(1)
    assert attention_entropy(identity).item() == pytest.approx(0, abs=1e-6)
    assert attention_entropy(torch.ones(2, 1, 1, 1)).item() == 0
    assert matching_weight(uniform).item() == pytest.approx(1 / 8)
    assert matching_weight(identity).item() == 1
    assert matching_weight(elsewhere).item() == 0
