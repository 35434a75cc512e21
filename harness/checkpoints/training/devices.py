"""One training on several devices: a process each, through accelerate.

They share each batch, average their gradients and so take the same step. Batches, losses and results are those of one
process, to the rounding of sums that are added up in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch


def prepare_training() -> str:
    """Prepare this process for a training; returns its device."""
    import torch

    from harness.checkpoints.training.cpu import prepare_process
    from harness.machine.hardware import cores

    prepare_process(max(1, min(cores() // process_group().size, torch.get_num_threads())))
    return "cuda" if torch.cuda.is_available() else "cpu"


PATIENCE = timedelta(days=7)
"""For others that are at work: who is dead is found out by the process that started them all."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that share a training, as one of them sees it; alone there is nothing to be shared."""

    rank: int = 0
    size: int = 1
    accelerator: Any = None

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        """What to call in the model's stead, so that gradients are averaged."""
        if self.size == 1:
            return model
        wrapped: torch.nn.Module = self.accelerator.prepare_model(model)
        return wrapped

    def share(self, chosen: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], float]:
        """This process's part of a batch, and what its mean loss counts in the average over all processes."""
        part = np.array_split(chosen, self.size)[self.rank]
        if not len(part):  # a last batch of fewer rows than processes: everyone must take part in every step
            return chosen[:1], 0.0
        return part, len(part) * self.size / len(chosen)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        if self.size == 1:
            return values
        found: torch.Tensor = self.accelerator.reduce(values, "mean")
        return found

    def any(self, flag: bool) -> bool:
        """Whether it is true for one of them: they all must know, or some would wait for the others' gradients."""
        if self.size == 1:
            return flag
        return bool(self.mean(torch.tensor(float(flag), device=self.accelerator.device)) > 0)

    def gather(self, state: torch.Tensor) -> torch.Tensor:
        """One row a process; alone the state itself."""
        if self.size == 1:
            return state
        rows: torch.Tensor = self.accelerator.gather(state.to(self.accelerator.device)[None])
        return rows.cpu()

    def own(self, states: torch.Tensor) -> torch.Tensor:
        """What this process gathered; after a training with fewer of them another's."""
        return states if states.dim() == 1 else states[self.rank % len(states)]

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes ahead: the others find in the cache what it made."""
        if self.size == 1:
            yield
        else:
            with self.accelerator.main_process_first():
                yield


def process_group() -> ProcessGroup:
    """That of this process."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return ProcessGroup()
    return ProcessGroup(torch.distributed.get_rank(), torch.distributed.get_world_size(), make_accelerator())


def make_accelerator() -> Any:
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",  # the loop has its own
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
