"""ONNX Runtime on an ONNX file that was made elsewhere, run as it is.

The checkpoint folder holds it as `model.onnx`, beside a config.json and a tokenizer. Its inputs may be any of ours, as int64 or int32;
its output is `logits`, or `start_logits` and `end_logits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import (
    INPUTS,
    Availability,
    BackendError,
    BackendFields,
    Batch,
    Device,
    Placement,
    Settings,
    check_length,
)
from backends.checkpoint import read_encoder
from backends.onnx_runtime import ONNXRUNTIME_FP32, OnnxRuntimeSession
from backends.processor import saturates_integer_products

if TYPE_CHECKING:
    import numpy as np

FILE = "model.onnx"
"""The file's name in a checkpoint folder."""
DATA_ENDS = ("_data", ".data")
"""How the files beside it are called that hold the tensors of a large model."""
_ANSWERS = (("logits",), ("start_logits", "end_logits"))


def data_files(file: Path) -> list[Path]:
    """The files that hold an ONNX file's tensors, where it is too large for one."""
    names = [f"{file.name}{end}" for end in DATA_ENDS]
    return [file.with_name(name) for name in names if file.with_name(name).is_file()]


def folder_of_onnx(file: Path) -> Path | None:
    """The folder with the configuration and tokenizer of an ONNX file: its own, or the one above. None where there is none."""
    return next((folder for folder in file.parents[:2] if (folder / "config.json").is_file()), None)


@dataclass(frozen=True, kw_only=True)
class OnnxFile(BackendFields):
    """The backend of models with source `onnx:PATH`."""

    distributions: tuple[str, ...] = ("onnxruntime-gpu|onnxruntime",)

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        available = ONNXRUNTIME_FP32.availability(machine)
        return replace(
            available, device="cpu"
        )  # the CUDA provider has hardly any integer kernels, and the file may have integers

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> OnnxFileSession:
        encoder = read_encoder(checkpoint)
        check_length(settings, encoder.positions)
        if not (checkpoint / FILE).is_file():
            raise BackendError(f"{checkpoint / FILE} is missing; this backend runs models with source = 'onnx:PATH'")
        return OnnxFileSession(checkpoint / FILE, encoder, settings, device, integer=False)


class OnnxFileSession(OnnxRuntimeSession):
    """It answers by the file's own names of inputs and outputs."""

    def __init__(self, path: Path, *arguments: Any, **options: Any) -> None:
        super().__init__(path, *arguments, **options)
        self.artifact_bytes += sum(
            file.stat().st_size for file in path.parent.iterdir() if file.name.endswith(DATA_ENDS)
        )
        self._types: dict[str, str] = {}
        for given in self._session.get_inputs():
            if given.name not in INPUTS:
                raise BackendError(
                    f"{FILE}: asks for input '{given.name}'; export a model that takes {', '.join(INPUTS)} only"
                )
            if any(isinstance(size, int) for size in given.shape):
                raise BackendError(
                    f"{FILE}: input '{given.name}' has the fixed shape {given.shape}; export it with dynamic batch and length"
                )
            self._types[given.name] = given.type
        outputs = {output.name for output in self._session.get_outputs()}
        answers = next((names for names in _ANSWERS if set(names) <= outputs), None)
        if answers is None:
            raise BackendError(
                f"{FILE}: has the outputs {', '.join(sorted(outputs))[:200]}, and none is 'logits'; export the model with its head"
            )
        self._answers = list(answers)

    def _run(self, session: Any, batch: Batch) -> np.ndarray[Any, Any]:
        import numpy as np

        inputs = {
            name: batch[name].astype(np.int32) if kind == "tensor(int32)" else batch[name]
            for name, kind in self._types.items()
        }
        parts = [part.astype(np.float32, copy=False) for part in session.run(self._answers, inputs)]
        return parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)

    def placement(self) -> Placement:
        placement = super().placement()
        if not placement.int8_macs or not saturates_integer_products():
            return placement
        note = "this CPU has no VNNI: u8 x s8 products may saturate, as in every program that loads this file as it is"
        return replace(placement, notes=(*placement.notes, note))


ONNXRUNTIME_FILE = OnnxFile(name="onnxruntime_file", graph=None, any_family=True)
