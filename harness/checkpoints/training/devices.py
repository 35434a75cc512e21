"""Training on several devices: one process for each, through accelerate.

The processes share each batch and average their gradients, so that all take the same step. Batches, losses and results are
those of a single process, up to rounding: sums are added in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch

from harness.checkpoints.training.cpu import prepare_process
from harness.machine.hardware import cores

TIMEOUT = timedelta(days=7)
"""How long a process waits for another, which may be busy for long. The parent process notices one that died."""


def prepare_training() -> str:
    """Set this process up for a training; returns its device, "cuda" or "cpu"."""
    prepare_process(max(1, min(cores() // process_group().size, torch.get_num_threads())))
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that share a training, as one of them sees it. rank: its number, from 0. A process that trains alone is a
    group of size 1."""

    rank: int = 0
    size: int = 1
    accelerator: Any = None

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """The module to call instead of `model`, so that gradients are averaged over the processes."""
        if self.size == 1:
            return model
        wrapped: torch.nn.Module = self.accelerator.prepare_model(model)
        return wrapped

    def split_batch(self, batch: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], float]:
        """This process's rows of a batch, and the weight of their mean loss in the average over all processes."""
        part = np.array_split(batch, self.size)[self.rank]
        if not len(part):  # a batch of fewer rows than processes: every process must still take part in the step
            return batch[:1], 0.0
        return part, len(part) * self.size / len(batch)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over all processes, element by element."""
        if self.size == 1:
            return values
        means: torch.Tensor = self.accelerator.reduce(values, "mean")
        return means

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process. All must agree, or some would wait for the gradients of others for ever."""
        if self.size == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=self.accelerator.device)) > 0)

    def gather(self, state: torch.Tensor) -> torch.Tensor:
        """The states of all processes, a row each; for a single process the state itself."""
        if self.size == 1:
            return state
        rows: torch.Tensor = self.accelerator.gather(state.to(self.accelerator.device)[None])
        return rows.cpu()

    def own_state(self, states: torch.Tensor) -> torch.Tensor:
        """This process's row of what `gather` returned. A training that now has more processes uses rows twice."""
        return states if states.dim() == 1 else states[self.rank % len(states)]

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The first process runs the block before the others, which then find its result in the cache."""
        if self.size == 1:
            yield
        else:
            with self.accelerator.main_process_first():
                yield


def process_group() -> ProcessGroup:
    """The group of this process."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return ProcessGroup()
    return ProcessGroup(torch.distributed.get_rank(), torch.distributed.get_world_size(), make_accelerator())


def make_accelerator() -> Any:
    """accelerate's Accelerator of this process; the first one connects the processes."""
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",  # the training loop sets it
        kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)],
    )
