"""The output of a logged pt2 program, run in a sandboxed process.

The parent runs this module with an environment of a few names, in a scratch folder; it reads `example.safetensors` there, loads
the program, and leaves `logits.safetensors`, or a line on its standard error.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

import gkd_core
from gkd_core.errors import WeightsError
from gkd_core.messages import last_words, one_line
from gkd_core.models.tensor_files import read_tensors, write_tensors
from gkd_core.system.confined import confine

logger = logging.getLogger(__name__)

EXAMPLE, LOGITS, IMAGES = "example.safetensors", "logits.safetensors", "images"
KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")  # of our environment
SECONDS = 600  # of CPU, and of time
LARGEST_FILE = 2**31  # bytes of what it leaves


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
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"HOME": str(scratch), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    # -P: the folder that it runs in holds files of the model, and none of them may be importable.
    command = [sys.executable, "-P", "-m", __spec__.name if __spec__ else __name__, str(program)]
    try:
        done = subprocess.run(
            command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{label}: its program did not end within {SECONDS} s; log the model again") from None
    if done.returncode:
        what = f"signal {signal.Signals(-done.returncode).name}" if done.returncode < 0 else last_words(done.stderr, 300)
        raise WeightsError(f"{label}: its program cannot be loaded or run ({what}); log the model again")
    if done.stdout.strip():
        logger.warning("%s: its program was run, but this system cannot withhold from it: %s", label, one_line(done.stdout))
    return read_tensors(scratch / LOGITS)["logits"]


def main(program: Path) -> int:
    """Run the program on the example in the current folder, confined."""
    images = safetensors.torch.load_file(EXAMPLE)[IMAGES]
    lacking = confine(Path.cwd(), [program, Path(gkd_core.__file__).parent], SECONDS, LARGEST_FILE)
    print(", ".join(lacking))
    try:
        with torch.inference_mode():
            logits = torch.export.load(program).module()(images)
    except Exception as error:  # whatever a foreign program does: the parent gets it in a line
        print(f"{type(error).__name__}: {one_line(error)}", file=sys.stderr)
        return 1
    Path(LOGITS).write_bytes(safetensors.torch.save({"logits": logits.contiguous()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
