"""FLOPs of one image, by part, counted by torch on the meta device: the real modules run, without numbers and without memory.

torch counts matrix products and convolutions, two FLOPs for a multiplication and an addition. Norms, activations and the
sampling of deformable attention are left out, as they are in the usual figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gkd_core.distill.job import DistillJob, step_encoder
from gkd_core.distill.objective import DistillBatch
from gkd_core.distill.stage_one import build_objective
from gkd_core.methods import encoder_is_frozen, method_of
from gkd_core.models.build import build_encoder, parameter_count
from gkd_core.models.decoders import build_decoder
from gkd_core.models.encoder import Encoder, Tokens
from gkd_core.settings import DistillSettings, EncoderSettings, LearnTaskSettings, Settings

# A backward pass has a product for the inputs and one for the weights where the forward pass has one.
FORWARD_AND_BACKWARD = 3
# Images in a counted batch: enough for the usual masked shares of a batch to be whole numbers of images.
BATCH = 8

Size = tuple[int, int]
Role = Literal["student", "teacher"]


class Cost(NamedTuple):
    """Of one part of a model: parameters, and FLOPs that an image takes in it."""

    parameters: int
    flops: float


def distillation_cost(
    section: DistillSettings, objective: str, teacher: EncoderSettings, student: EncoderSettings
) -> dict[str, Cost]:
    """A step of stage one: the teacher's forward pass, and the student with its heads, forward and backward, both views.

    Args:
        objective: `qsd` or `mse`.
    """
    with torch.device("meta"):
        answering = _encoder(step_encoder(teacher, section)).eval().requires_grad_(False)
        learning = build_objective(_job(section, objective, step_encoder(student, section)), answering.dim)
        images = torch.zeros(BATCH, 3, *section.image_size)
        rows, columns = learning.student.grid(*section.image_size)
        masks = torch.zeros(round(BATCH * section.mask_probability), rows * columns, dtype=torch.bool)
        tokens = Tokens(torch.zeros(BATCH, answering.dim), torch.zeros(BATCH, rows * columns, answering.dim))
    batch = DistillBatch(images, masks, tokens, warm_up=False)
    learnt = _count(lambda: learning(batch)["loss"].backward()) / BATCH
    asked = _count(lambda: answering.tokens(images)) / BATCH
    return {
        "teacher": Cost(parameter_count(answering), asked),
        "student": Cost(parameter_count(learning.student), learnt),
        "heads": Cost(parameter_count(learning) - parameter_count(learning.student), 0.0),
    }


def segmentor_cost(role: Role, encoder: EncoderSettings, section: LearnTaskSettings, classes: int, size: Size) -> dict[str, Cost]:
    """Encoder, named by its role, and decoder, forward alone, on an image of a size (height, width)."""
    with torch.device("meta"):
        seeing = _encoder(encoder).eval()
        # Moved as well: one tensor of Mask2Former is made by a constructor that overlooks the default device.
        decoder = build_decoder(section.decoder, seeing, classes, section.decoder_width, section.mask2former).eval().to("meta")
        images = torch.zeros(1, 3, *size)
    with torch.no_grad():
        features: list[Tensor] = []
        seen = _count(lambda: features.extend(decoder.features(seeing, images)))
        decoded = _count(lambda: decoder(features))
    return {role: Cost(parameter_count(seeing), seen), "decoder": Cost(parameter_count(decoder), decoded)}


def task_cost(forward: Mapping[str, Cost], settings: Settings) -> dict[str, Cost]:
    """Stage two, from the forward cost of its segmentor: what is trained counts three times, and a teacher may be asked.

    The matching of masks, in which the counter would see nothing, is left out.
    """
    frozen = {method_of(settings).encoder} if encoder_is_frozen(settings) else set()
    costs = {part: cost if part in frozen else _trained(cost) for part, cost in forward.items()}
    if method_of(settings).joint_distillation:
        with torch.device("meta"):
            teacher = _encoder(settings.teacher).eval()
            images = torch.zeros(1, 3, *settings.learn_task.image_size)
        costs["teacher"] = Cost(parameter_count(teacher), _count(lambda: teacher.tokens(images)))
    return costs


def _trained(cost: Cost) -> Cost:
    return Cost(cost.parameters, FORWARD_AND_BACKWARD * cost.flops)


def _encoder(settings: EncoderSettings) -> Encoder:
    """The architecture without its weights, which change no count."""
    return build_encoder(settings.model_copy(update={"weights": "random"}), seed=0)


def _job(section: DistillSettings, objective: str, student: EncoderSettings) -> DistillJob:
    return DistillJob(
        title="plan",
        objective=objective,
        settings=section,
        updates=0,
        teacher=student,
        student=student.model_copy(update={"weights": "random"}),
        images=(),
        start=None,
        seed=0,
        threads=1,
        device="meta",
        run_folder=Path(),
    )


def _count(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
