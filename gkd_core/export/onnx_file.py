"""Programs as ONNX files: written by torch, run by onnxruntime. Both packages are asked for only here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from gkd_core.errors import GkdError
from gkd_core.export.wanted import Wanted
from gkd_core.messages import one_line

OPSET = 18  # what torch's translation is written in; every later runtime takes it
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
AXES = {"logits-of-floats": ("batch", None, "height", "width"), "classes-of-bytes": ("batch", "height", "width", None)}
RESULTS = {"logits-of-floats": "logits", "classes-of-bytes": "classes"}
FACTS = "gkd"  # key of what we say of a program, in the file's own metadata


def check_packages() -> None:
    """Raise `GkdError` where a package is missing without which no ONNX file is written."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise GkdError(
                f"--format onnx: the package {name} cannot be imported ({one_line(error)}); pip install {' '.join(PACKAGES)}"
            ) from None


def write_onnx(program: ExportedProgram, wanted: Wanted, path: Path) -> None:
    """Write a graph as one ONNX file.

    Raises:
        GkdError: torch cannot translate it, or what it wrote is no valid model.
    """
    import onnx

    try:
        translated: Any = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, output_names=[RESULTS[wanted.takes]], verbose=False
        )
        model = translated.model_proto
        _name_axes(model, wanted)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
    except OSError:
        raise
    except Exception as error:  # of many kinds, as each layer has its own
        raise GkdError(f"the student cannot be written as ONNX by torch {torch.__version__} ({one_line(error, 300)})") from error


def _name_axes(model: Any, wanted: Wanted) -> None:
    """Give free axes names that a person understands, in the place of s34."""
    (images,) = model.graph.input
    names = {
        dim.dim_param: name
        for dim, name in zip(images.type.tensor_type.shape.dim, AXES[wanted.takes], strict=True)
        if dim.dim_param and name
    }
    del model.graph.value_info[:]  # of values inside, said in terms of the former names; runtimes infer them
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, dim.dim_param)


def run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """The file as a function of images, computed by onnxruntime on the CPU.

    Raises:
        GkdError: onnxruntime does not take the file; so does the function, where it fails.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is told by us
    options.intra_op_num_threads = torch.get_num_threads()

    def answered(images: Tensor) -> Tensor:
        try:
            (result,) = session.run(None, {name: images.numpy()})
        except Exception as error:
            raise _refused(images, error) from error
        return torch.from_numpy(result)

    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
    except Exception as error:
        raise GkdError(f"onnxruntime {onnxruntime.__version__} does not take the program ({one_line(error, 300)})") from error
    return answered


def _refused(images: Tensor, error: Exception) -> GkdError:
    return GkdError(f"onnxruntime cannot run the program on images {tuple(images.shape)} ({one_line(error, 300)})")


def add_onnx_facts(path: Path, facts: str) -> None:
    """Put what is known of a program into its file: behind what was checked, which stays byte for byte."""
    import onnx

    model = onnx.ModelProto()
    entry = model.metadata_props.add()
    entry.key, entry.value = FACTS, facts
    with path.open("ab") as stream:
        stream.write(model.SerializeToString())  # protobuf joins messages that follow each other
