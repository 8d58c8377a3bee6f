"""FLOPs of a step of each stage, by part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from gkd_core.distill.job import DistillJob, step_encoder
from gkd_core.distill.objective import DistillBatch
from gkd_core.distill.stage_one import build_objective
from gkd_core.methods import encoder_is_frozen, method_of
from gkd_core.models.build import parameter_count
from gkd_core.models.encoder import Tokens
from gkd_core.models.flops import FORWARD_AND_BACKWARD, Cost, counted, empty_encoder
from gkd_core.settings import DistillSettings, EncoderSettings, Settings

# Images in a counted batch: enough for the usual masked shares of a batch to be whole numbers of images.
BATCH = 8


def distillation_cost(
    section: DistillSettings, objective: str, teacher: EncoderSettings, student: EncoderSettings
) -> dict[str, Cost]:
    """A step of stage one: the teacher's forward pass, and the student with its heads, forward and backward, both views.

    Args:
        objective: `qsd` or `mse`.
    """
    with torch.device("meta"):
        answering = empty_encoder(step_encoder(teacher, section)).eval().requires_grad_(False)
        learning = build_objective(_job(section, objective, step_encoder(student, section)), answering.dim)
        images = torch.zeros(BATCH, 3, *section.image_size)
        rows, columns = learning.student.grid(*section.image_size)
        masks = torch.zeros(round(BATCH * section.mask_probability), rows * columns, dtype=torch.bool)
        tokens = Tokens(torch.zeros(BATCH, answering.dim), torch.zeros(BATCH, rows * columns, answering.dim))
    batch = DistillBatch(images, masks, tokens, warm_up=False)
    learnt = counted(lambda: learning(batch)["loss"].backward()) / BATCH
    asked = counted(lambda: answering.tokens(images)) / BATCH
    return {
        "teacher": Cost(parameter_count(answering), asked),
        "student": Cost(parameter_count(learning.student), learnt),
        "heads": Cost(parameter_count(learning) - parameter_count(learning.student), 0.0),
    }


def task_cost(forward: Mapping[str, Cost], settings: Settings) -> dict[str, Cost]:
    """Stage two, from the forward cost of its segmentor: what is trained counts three times, and a teacher may be asked.

    The matching of masks, in which the counter would see nothing, is left out.
    """
    frozen = {method_of(settings).encoder} if encoder_is_frozen(settings) else set()
    costs = {part: cost if part in frozen else _trained(cost) for part, cost in forward.items()}
    if method_of(settings).joint_distillation:
        with torch.device("meta"):
            teacher = empty_encoder(settings.teacher).eval()
            images = torch.zeros(1, 3, *settings.learn_task.image_size)
        costs["teacher"] = Cost(parameter_count(teacher), counted(lambda: teacher.tokens(images)))
    return costs


def _trained(cost: Cost) -> Cost:
    return Cost(cost.parameters, FORWARD_AND_BACKWARD * cost.flops)


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
