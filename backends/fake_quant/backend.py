"""`fake_quant_w8a8`: integer arithmetic simulated in PyTorch with the ranges of a checkpoint. It shows what accuracy an engine's
integers can reach, and nothing about speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import Availability, BackendFields, Batch, Device, Placement, Settings
from backends.torch_eager import TORCH_FP32, TorchSession

if TYPE_CHECKING:
    import numpy as np

    from backends.ranges import Ranges


@dataclass(frozen=True, kw_only=True)
class FakeQuant(BackendFields):
    """The backend; runs any scheme. See `backends.base.Backend`."""

    distributions: tuple[str, ...] = TORCH_FP32.distributions

    def availability(self, machine: Mapping[str, Any]) -> Availability:
        return TORCH_FP32.availability(machine)

    def prepare(self, checkpoint: Path, settings: Settings, device: Device) -> FakeQuantSession:
        """Raises BackendError if the folder has no valid `ranges.json`, and where `torch_fp32` does."""
        from backends.ranges import read_ranges

        ranges = read_ranges(checkpoint)
        return FakeQuantSession(TORCH_FP32.prepare(checkpoint, settings, device), ranges)


class FakeQuantSession:
    """A session of `torch_fp32` with quantizers in its model. Weights are rounded once, here; computed tensors in each run."""

    built = False
    build_seconds = 0.0

    def __init__(self, session: TorchSession, ranges: Ranges) -> None:
        from backends.fake_quant.simulate import simulate

        simulate(session.model, ranges)
        self._session = session
        self._scheme = ranges.scheme
        self.artifact_bytes = session.artifact_bytes

    def run(self, batch: Batch) -> np.ndarray[Any, Any]:
        return self._session.run(batch)

    def placement(self) -> Placement:
        """As that of `torch_fp32`, without the quantizers. No product ran on integers."""
        plain = self._session.placement()
        detail: dict[str, tuple[str, str, str]] = {}
        for name, operator, provider in plain.detail:
            module, is_quantizer, quantizer = name.rpartition(".quantize_")
            if not is_quantizer:
                detail[name] = (name, operator, provider)
            elif quantizer == "weight":  # of a FakeQuantLinear or FakeQuantEmbedding: stands for its module
                kind = type(self._session.model.get_submodule(module)).__name__
                detail[module] = (module, kind, plain.claimed)
        count = sum(operator == "FakeQuantLinear" for _, operator, _ in detail.values())
        note = f"{count} linear layers simulate integer products in float32 with the ranges of {self._scheme.name}"
        if reason := self._scheme.simulation_only:
            note += f"; no engine runs this scheme: {reason}"
        nodes = {plain.claimed: len(detail)}
        return replace(plain, nodes=nodes, detail=tuple(detail.values()), notes=(*plain.notes, note))

    def close(self) -> None:
        self._session.close()


FAKE_QUANT_W8A8 = FakeQuant(
    name="fake_quant_w8a8",
    quantizes="static",
    simulated=True,
    graph=("fp32", "u8"),
    relative_cost=1.5,
    title="Simulated W8A8",
)
