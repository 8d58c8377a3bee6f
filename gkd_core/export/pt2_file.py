"""Programs as pt2 files, which torch alone runs."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from gkd_core.errors import GkdError
from gkd_core.messages import one_line

FACTS = "gkd.json"  # what we say of a program, an extra file of torch's


def write_pt2(program: ExportedProgram, path: Path) -> None:
    """Write a graph as a pt2 file.

    Raises:
        GkdError: torch cannot write it.
    """
    try:
        torch.export.save(program, path)
    except OSError:
        raise
    except Exception as error:  # of many kinds, as each layer has its own
        raise GkdError(f"the student cannot be written as pt2 by torch {torch.__version__} ({one_line(error, 300)})") from error


def run_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    """A file that we have just written, read anew, as a function of images.

    Raises:
        GkdError: torch does not take the file; so does the function, where it fails.
    """
    try:
        module = torch.export.load(path).module()
    except Exception as error:
        raise GkdError(f"torch {torch.__version__} does not take the program ({one_line(error, 300)})") from error

    def answered(images: Tensor) -> Tensor:
        try:
            with torch.inference_mode():
                result: Tensor = module(images)
        except Exception as error:
            raise GkdError(f"torch cannot run the program on images {tuple(images.shape)} ({one_line(error, 300)})") from error
        return result

    return answered


def add_pt2_facts(path: Path, facts: str) -> None:
    """Put what is known of a program into its file, beside what was checked."""
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/extra/{FACTS}", facts)
