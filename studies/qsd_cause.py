"""Why does the attention of query-based soft distillation not line up from a cold start? Short runs of one head.

    python -m studies.qsd_cause --output artifacts/qsd-cause

Every variant has its own student and its own head, from the same weights, and sees the same batches: no mask, no cls,
nothing differs but the loss. Images are proxy images of a world apart (seed 107), a sixth of them held back.
`docs/qsd-start.md` holds the results and what they mean.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.data.catalog.load import load_catalog
from gkd_core.data.files.reading import list_images, read_image
from gkd_core.distill.qsd import QuerySoftDistillation, attention_entropy, matching_weight
from gkd_core.distill.warm_start import match_queries, regress_queries, value_loss
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder
from gkd_core.paths import DATA
from gkd_core.seeding import generator
from gkd_core.settings import Settings, load_settings
from gkd_core.stages import Recipe, run_stage

SIDE = 64  # pixels of a view
BATCH = 8
WARMUP = 50  # updates over which the learning rate rises
WARM_SHARE = 0.75  # of the updates; annealing the bias takes as many
LOOKS = (0, 30, 100)  # updates to look at, beside the last
DIAGONAL_BIAS = 40.0  # more than any logit is above another at the start

# Of a head, student tokens, teacher tokens and the share of the updates that are done: a scalar.
Loss = Callable[[QuerySoftDistillation, Tensor, Tensor, float], Tensor]


class ScaledHead(QuerySoftDistillation):
    """With the scale of ordinary attention."""

    def logits(self, student_tokens: Tensor, teacher_tokens: Tensor) -> Tensor:
        return super().logits(student_tokens, teacher_tokens) / math.sqrt(teacher_tokens.shape[-1])


class CentredHead(QuerySoftDistillation):
    """With keys that have no part in common."""

    def logits(self, student_tokens: Tensor, teacher_tokens: Tensor) -> Tensor:
        return super().logits(student_tokens, teacher_tokens - teacher_tokens.mean(dim=1, keepdim=True))


def mse(head: QuerySoftDistillation, student: Tensor, teacher: Tensor, done: float) -> Tensor:
    return value_loss(head, student, teacher)


def published(head: QuerySoftDistillation, student: Tensor, teacher: Tensor, done: float) -> Tensor:
    return functional.mse_loss(head(student, teacher), teacher)


def biased(head: QuerySoftDistillation, student: Tensor, teacher: Tensor, done: float) -> Tensor:
    bias = DIAGONAL_BIAS * max(0.0, 1 - done / WARM_SHARE) * torch.eye(teacher.shape[1])
    attention = torch.softmax(head.logits(student, teacher)[:, 0] + bias, dim=-1)
    return functional.mse_loss(attention @ head.proj_v(student), teacher)


def warm(query_loss: Callable[[QuerySoftDistillation, Tensor, Tensor], Tensor]) -> Loss:
    def loss(head: QuerySoftDistillation, student: Tensor, teacher: Tensor, done: float) -> Tensor:
        if done >= WARM_SHARE:
            return published(head, student, teacher, done)
        return value_loss(head, student, teacher) + query_loss(head, student, teacher)

    return loss


VARIANTS: dict[str, tuple[type[QuerySoftDistillation], Loss]] = {
    "MSE": (QuerySoftDistillation, mse),
    "published": (QuerySoftDistillation, published),
    "logits / √d": (ScaledHead, published),
    "keys centred": (CentredHead, published),
    "annealed diagonal bias": (QuerySoftDistillation, biased),
    "warm start, regression": (QuerySoftDistillation, warm(regress_queries)),
    "warm start, matching": (QuerySoftDistillation, warm(match_queries)),
}


@dataclass
class Pupil:
    """A student that learns by one of the losses."""

    loss: Loss
    student: Encoder
    head: QuerySoftDistillation
    optimizer: torch.optim.Optimizer


def main() -> None:
    """Train all variants side by side; print what their attention does, and what their students hold in the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("artifacts/qsd-cause"), help="folder for the world's images")
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--images", type=int, default=480, help="proxy images")
    parser.add_argument("--seed", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = load_settings(
        profile="demo", overrides=["data.world.seed=107", f"data.world.proxy_images={arguments.images}", f"seed={arguments.seed}"]
    )
    images = _images(settings, arguments.output.resolve())
    teacher = build_encoder(settings.teacher, 0).eval()
    with torch.no_grad():
        targets = torch.cat([teacher.tokens(part).patches for part in images.split(64)])
    held_back = len(images) // 6
    pupils = {name: _pupil(settings, kind, loss, targets.shape[-1]) for name, (kind, loss) in VARIANTS.items()}
    print(
        "| variant | update | entropy | matching weight | queries on one key | spread of values | gradient of phi |\n"
        + "|---" * 7
        + "|"
    )
    train(pupils, images[:-held_back], targets[:-held_back], arguments.updates, settings)
    print("\n| variant | variance of the teacher's tokens that the student's hold |\n|---|---|")
    for name, pupil in pupils.items():
        print(f"| {name} | {decodable_share(pupil.student, images, targets, held_back):.3f} |")


def train(pupils: dict[str, Pupil], images: Tensor, targets: Tensor, updates: int, settings: Settings) -> None:
    """Take every pupil through the same batches, and print a line for each at every update to look at."""
    peak = settings.distill_proxy.lr
    draws = generator("qsd-cause", settings.seed)
    for update in range(updates):
        chosen = torch.randint(0, len(images), (BATCH,), generator=draws)
        brightness = 0.7 + 0.6 * torch.rand(BATCH, 1, 1, 1, generator=draws)
        views, teacher = images[chosen] * brightness, targets[chosen]
        rate = peak * min(1.0, (update + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * update / updates))
        for name, pupil in pupils.items():
            for group in pupil.optimizer.param_groups:
                group["lr"] = rate
            tokens = pupil.student.tokens(views).patches
            pupil.optimizer.zero_grad()
            pupil.loss(pupil.head, tokens, teacher, update / updates).backward()
            if update in LOOKS or update == updates - 1:
                print(f"| {name} | {update} | " + " | ".join(look(pupil.head, tokens.detach(), teacher)) + " |", flush=True)
            pupil.optimizer.step()


@torch.no_grad()
def look(head: QuerySoftDistillation, student: Tensor, teacher: Tensor) -> list[str]:
    """Entropy and matching weight; share of an image's queries whose strongest key is the commonest one; variance of the values
    over an image, as a share of the teacher's; norm of phi's gradient."""
    attention = head.attention(student, teacher)
    strongest = attention[:, 0].argmax(dim=-1)
    one_key = (strongest == strongest.mode(dim=-1, keepdim=True).values).float().mean()
    spread = head.proj_v(student).var(dim=1).mean() / teacher.var(dim=1).mean()
    gradients = [p.grad.norm() for p in head.proj_q.parameters() if p.grad is not None]
    slope = torch.stack(gradients).norm() if gradients else torch.zeros(())
    return [f"{value:.3f}" for value in (attention_entropy(attention), matching_weight(attention), one_key, spread, slope)]


@torch.no_grad()
def decodable_share(student: Encoder, images: Tensor, targets: Tensor, held_back: int) -> float:
    """R² of ridge regression from student tokens to teacher tokens: fitted on training images, measured on those held back.

    It asks what a student's tokens hold, whatever head it was trained with; losses with and without attention do not compare.
    """
    tokens = torch.cat([student.eval().tokens(part).patches for part in images.split(64)])
    inputs = functional.pad(tokens, (0, 1), value=1.0).double()
    known, asked = inputs[:-held_back].flatten(0, 1), inputs[-held_back:].flatten(0, 1)
    outputs, truth = targets[:-held_back].flatten(0, 1).double(), targets[-held_back:].flatten(0, 1).double()
    ridge = 1e-6 * len(known) * torch.eye(known.shape[-1], dtype=known.dtype)
    weights = torch.linalg.solve(known.T @ known + ridge, known.T @ outputs)
    return float(1 - (asked @ weights - truth).square().sum() / (truth - outputs.mean(dim=0)).square().sum())


def _pupil(settings: Settings, kind: type[QuerySoftDistillation], loss: Loss, teacher_dim: int) -> Pupil:
    student = build_encoder(settings.student, settings.seed)
    torch.manual_seed(settings.seed)
    head = kind(student.dim, teacher_dim)
    parameters = nn.ModuleList([student, head]).parameters()
    return Pupil(loss, student, head, torch.optim.AdamW(parameters, weight_decay=settings.distill_proxy.weight_decay))


def _images(settings: Settings, folder: Path) -> Tensor:
    """Random squares of the proxy images, (count, 3, SIDE, SIDE) in 0..1."""
    if not (folder / DATA).exists():
        run_stage(Recipe.of(settings), Recipe.of(settings).find("prepare-data"), folder)
    proxy = load_catalog().domain(settings.data.proxy)
    draws = generator("qsd-cause-views", settings.seed)
    views = []
    for path in list_images(proxy.entry, folder / DATA, proxy.split):
        image = torch.from_numpy(read_image(path)).permute(2, 0, 1) / 255
        top, left = (int(torch.randint(0, side - SIDE + 1, (1,), generator=draws)) for side in image.shape[1:])
        views.append(image[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(views)


if __name__ == "__main__":
    main()
