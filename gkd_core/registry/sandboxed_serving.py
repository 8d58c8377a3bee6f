"""What a logged model answers when MLflow serves it, in a sandboxed process: its script is code, which MLflow runs.

The child loads the flavour `python_function` as MLflow's server does, asks for the input example, and leaves `answer.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import mlflow.pyfunc
import torch

from gkd_core.errors import WeightsError
from gkd_core.registry.sandboxed import do_confined, run_apart
from gkd_core.registry.served_student import DEVICE_KEY

ANSWER = "answer.json"


def served_answer(model: Path, longest: int, scratch: Path, label: str) -> bytes:
    """What the flavour `python_function` of a model answers its input example, on the CPU, as `written` writes it.

    Args:
        model: its folder, whose digests were checked.
        longest: bytes of an answer; of a longer one, no more are read.
        scratch: an empty folder, the only one that its code can write to.
        label: what the model is called in messages.

    Raises:
        WeightsError: it cannot be loaded, gives no answer, or takes too long.
    """
    run_apart(__spec__.name if __spec__ else __name__, model, torch.get_num_threads(), scratch, label)
    answer = scratch / ANSWER
    if answer.is_symlink() or not answer.is_file():  # a pipe would be waited for without end
        raise WeightsError(f"{label}: gives no answer where it is served; log the model again")
    with answer.open("rb") as stream:
        return stream.read(longest)


def written(answers: Sequence[object]) -> bytes:
    """Answers as JSON."""
    return json.dumps(answers).encode()


def main(model: Path) -> int:
    """Ask the model for its input example, confined."""

    def work() -> None:
        served = mlflow.pyfunc.load_model(str(model), suppress_warnings=True, model_config={DEVICE_KEY: "cpu"})
        Path(ANSWER).write_bytes(written(served.predict(served.input_example)))

    return do_confined(work, [model])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
