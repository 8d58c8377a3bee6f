"""Whether the student that stage one left is the one that the settings ask for.

DVC sees to that in a recipe. Whoever runs a stage by hand, with other settings than those that the last one had, would get one
student's weights under another's name.
"""

from __future__ import annotations

from pathlib import Path

from gkd_core.distill.job import step_encoder
from gkd_core.errors import WeightsError
from gkd_core.messages import given_value
from gkd_core.records import EncoderCheckpoint
from gkd_core.settings import DistillSettings, Settings

IMPORTED = "import-checkpoint"  # as stage of a record: its student was trained by others, on their grid and with their seed
BUILD = ("arch", "options", "token_strides")
GRID = ("patch_size", "image_size")


def check_student(record: EncoderCheckpoint, settings: Settings, step: DistillSettings, manifest: Path) -> None:
    """Refuse a student that a step of stage one left under other settings.

    Args:
        step: the settings of that step.

    Raises:
        WeightsError: naming the first setting that differs.
    """
    wanted = step_encoder(settings.student, step)
    facts = {f"student.{key}": (getattr(record.encoder, key), getattr(wanted, key)) for key in BUILD}
    if record.stage != IMPORTED:
        facts |= {f"student.{key}": (getattr(record.encoder, key), getattr(wanted, key)) for key in GRID}
        facts |= {"method": (record.method, settings.method), "seed": (record.seed, settings.seed)}
    for key, (there, here) in facts.items():
        if there != here:
            raise WeightsError(
                f"{manifest}: this student was distilled with {key}={given_value(there)}, the settings say {given_value(here)}; "
                f"run stage one again with these settings, or give those that it was distilled with"
            )
