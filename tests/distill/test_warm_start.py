"""The warm start of QSD: what each loss trains, and an attention that lines up where a cold start leaves it at chance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.distill.qsd import QuerySoftDistillation, matching_weight
from gkd_core.distill.warm_start import match_queries, regress_queries, value_loss

PLACES = 16
STUDENT_DIM = 16
TEACHER_DIM = 32


@pytest.fixture
def head() -> QuerySoftDistillation:
    torch.manual_seed(0)
    return QuerySoftDistillation(STUDENT_DIM, TEACHER_DIM)


@pytest.fixture
def tokens(head: QuerySoftDistillation) -> tuple[Tensor, Tensor]:
    """Student and teacher tokens, drawn after the head."""
    return torch.randn(3, PLACES, STUDENT_DIM), torch.randn(3, PLACES, TEACHER_DIM)


def test_values_learn_what_qsd_is_with_the_identity_for_its_attention(
    head: QuerySoftDistillation, tokens: tuple[Tensor, Tensor]
) -> None:
    student, teacher = tokens
    answer = torch.eye(PLACES) @ head.proj_v(student)
    torch.testing.assert_close(value_loss(head, student, teacher), (answer - teacher).square().mean())


def test_matching_is_the_cross_entropy_of_the_attention_against_the_diagonal(
    head: QuerySoftDistillation, tokens: tuple[Tensor, Tensor]
) -> None:
    student, teacher = tokens
    own_place = torch.arange(PLACES).expand(3, -1)
    expected = functional.nll_loss(head.attention(student, teacher)[:, 0].log().flatten(0, 1), own_place.flatten())
    torch.testing.assert_close(match_queries(head, student, teacher), expected)


def test_matching_trains_phi_alone(head: QuerySoftDistillation, tokens: tuple[Tensor, Tensor]) -> None:
    student, teacher = tokens[0].requires_grad_(), tokens[1]
    match_queries(head, student, teacher).backward()
    assert student.grad is None
    assert all(p.grad is not None and p.grad.any() for p in head.proj_q.parameters())
    assert all(p.grad is None for p in head.proj_v.parameters())


def test_regression_trains_the_student_too(head: QuerySoftDistillation, tokens: tuple[Tensor, Tensor]) -> None:
    student, teacher = tokens[0].requires_grad_(), tokens[1]
    regress_queries(head, student, teacher).backward()
    assert student.grad is not None and student.grad.any()


def test_matching_of_a_single_token_is_zero(head: QuerySoftDistillation, tokens: tuple[Tensor, Tensor]) -> None:
    assert match_queries(head, tokens[0][:, :1], tokens[1][:, :1]).item() == 0


def test_matching_pulls_where_qsd_is_saturated_on_the_wrong_key(
    head: QuerySoftDistillation, tokens: tuple[Tensor, Tensor]
) -> None:
    """A softmax that is sure of the wrong place passes no gradient to phi; the cross entropy does."""
    student, teacher = tokens
    with torch.no_grad():
        head.proj_q[1].weight.zero_()
        head.proj_q[1].bias.copy_(100 * teacher[0, 3])
    student, teacher = student[:1], teacher[:1]
    assert head.attention(student, teacher)[..., 3].min() > 0.999

    (head(student, teacher) - teacher).square().mean().backward()
    stuck = head.proj_q[1].bias.grad.norm()
    head.zero_grad()
    match_queries(head, student, teacher).backward()
    assert stuck < 1e-6
    assert head.proj_q[1].bias.grad.norm() > 0.1


@pytest.mark.parametrize(("warm_updates", "lined_up"), [(0, False), (90, True)])
def test_attention_lines_up_after_a_warm_start_and_stays_at_chance_without(warm_updates: int, lined_up: bool) -> None:
    """The teacher's tokens are products of what the student sees: it must learn features before it can match anything."""
    torch.manual_seed(0)
    mixing = torch.randn(8, TEACHER_DIM)
    student = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, STUDENT_DIM))
    head = QuerySoftDistillation(STUDENT_DIM, TEACHER_DIM)
    optimizer = torch.optim.Adam([*student.parameters(), *head.parameters()], lr=3e-3)
    weight = torch.zeros(())
    for update in range(120):
        seen = torch.randn(8, PLACES, 16)
        teacher = functional.layer_norm((seen[..., :8] * seen[..., 8:]) @ mixing, (TEACHER_DIM,))
        tokens = student(seen)
        if update < warm_updates:
            loss = value_loss(head, tokens, teacher) + match_queries(head, tokens, teacher)
        else:
            loss = functional.mse_loss(head(tokens, teacher), teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        weight = matching_weight(head.attention(tokens, teacher))
    assert (weight > 8 / PLACES) == lined_up
    assert lined_up or weight < 2.5 / PLACES
