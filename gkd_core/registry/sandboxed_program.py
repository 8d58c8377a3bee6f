"""The output of a logged pt2 program, run in a sandboxed process.

The child reads `example.safetensors` in a scratch folder, loads the program, and leaves `logits.safetensors`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from gkd_core.models.tensor_files import read_tensors, write_tensors
from gkd_core.registry.sandboxed import do_confined, run_apart

EXAMPLE, LOGITS, IMAGES = "example.safetensors", "logits.safetensors", "images"


def program_logits(program: Path, images: Tensor, scratch: Path, label: str) -> Tensor:
    """Logits (B, K, H, W) that a pt2 program gives for images (B, 3, H, W).

    Args:
        program: the `.pt2` file, whose digest was checked.
        scratch: an empty folder, the only one that the program can write to.
        label: what the model is called in messages.

    Raises:
        WeightsError: it cannot be loaded or run, or takes too long.
    """
    write_tensors({IMAGES: images}, scratch / EXAMPLE)
    run_apart(__spec__.name if __spec__ else __name__, program, torch.get_num_threads(), scratch, label)
    return read_tensors(scratch / LOGITS)["logits"]


def main(program: Path) -> int:
    """Run the program on the example in the current folder, confined."""
    images = safetensors.torch.load_file(EXAMPLE)[IMAGES]

    def work() -> None:
        with torch.inference_mode():
            logits = torch.export.load(program).module()(images)
        Path(LOGITS).write_bytes(safetensors.torch.save({"logits": logits.contiguous()}))

    return do_confined(work, [program])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
