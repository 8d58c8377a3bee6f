"""ONNX files in integers of 8 bits: static quantisation by onnxruntime, its ranges taken from real images."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from gkd_core.errors import GkdError
from gkd_core.messages import one_line

WEIGHED = ("Conv", "Gemm", "MatMul")  # what has weights; sums of two activations, as in attention, stay in single precision


def quantise_onnx(path: Path, images: Iterable[Tensor]) -> None:
    """Replace an ONNX file by one whose layers with weights compute in 8 bits, a scale for each channel of weights.

    Args:
        images: batches as the program takes them, by which the range of each layer's input is found.

    Raises:
        GkdError: onnxruntime cannot do so.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Batches, one after the other."""

        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    target = path.with_name(f"{path.stem}-int8{path.suffix}")
    root = logging.getLogger()
    former = root.level
    root.setLevel(logging.ERROR)  # onnxruntime advises, on the root logger, what torch has done already
    try:
        quantize_static(
            str(path), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8, op_types_to_quantize=list(WEIGHED), nodes_to_exclude=_without_weights(path),
        )  # fmt: skip
        shutil.copyfile(target, path)  # into the file that its writer has locked
    except OSError:
        raise
    except Exception as error:  # of many kinds, as each layer has its own
        raise GkdError(f"the student cannot be quantised by onnxruntime ({one_line(error, 300)})") from error
    finally:
        root.setLevel(former)
        target.unlink(missing_ok=True)


def _without_weights(path: Path) -> list[str]:
    """Names of products of two values that both depend on the image."""
    import onnx

    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type in WEIGHED and not weights & set(node.input)]
