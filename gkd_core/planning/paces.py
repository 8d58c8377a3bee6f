"""How fast one worker computes, by a benchmark; used instead of FLOPs and an assumed share of a peak."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, RootModel, ValidationError

from gkd_core.documents import DocumentError, read_small
from gkd_core.errors import SettingsError
from gkd_core.messages import one_line, shown
from gkd_core.settings import Section
from gkd_core.settings.base import PositiveFloat
from gkd_core.stages.facts import names_where


class Pace(Section):
    """How fast one worker computes, the making of batches left out.

    An update of n images takes update_seconds + n / images_per_second. In evaluation the images are windows.
    """

    images_per_second: PositiveFloat
    update_seconds: float = Field(0.0, ge=0, description="Seconds of an update whatever its images: the optimizer, launches.")

    def seconds(self, images: float) -> float:
        """Seconds of one update of so many images."""
        return self.update_seconds + images / self.images_per_second


class Paces(RootModel[dict[str, Pace]]):
    """Paces by stage (`distill-proxy`) or stage run (`distill-source-gta5`), as JSON."""

    def of(self, run: str) -> Pace | None:
        """The pace of a stage run: its own, else its stage's, else None."""
        stages = [name for name in self.root if run == name or run.startswith(f"{name}-")]
        return self.root[max(stages, key=len)] if stages else None


NOTHING = Paces({})


def read_paces(file: Path, known: Iterable[str]) -> Paces:
    """Read the paces of a file.

    Args:
        known: names of the stage runs of this recipe.

    Raises:
        SettingsError: the file is missing, is not such JSON, or names an unknown stage.
    """
    try:
        paces = Paces.model_validate_json(read_small(file))
    except FileNotFoundError:
        raise SettingsError(f"--measured {file}: no such file; benchmarks/scaling.py and stage_one.py --json write one") from None
    except (OSError, DocumentError) as error:
        raise SettingsError(f"--measured {file}: cannot be read ({one_line(error)})") from None
    except ValidationError as error:
        first = error.errors()[0]
        key, reason = ".".join(str(part) for part in first["loc"]), one_line(first["msg"])
        raise SettingsError(f"--measured {file}: {shown(key) or 'the file'}: {reason[0].lower()}{reason[1:]}") from None
    stages = {name for run in known for name in (run, *_stages(run))}
    for name in paces.root:
        if name not in stages:
            raise SettingsError(f"--measured {file}: {shown(name)}: no such stage here; there is: {', '.join(sorted(stages))}")
    return paces


def _stages(run: str) -> list[str]:
    """The stage that a stage run, such as `distill-source-gta5`, is one of."""
    return [stage for stage in names_where(lambda stage: stage.unit is not None) if run.startswith(stage)]
