"""The training loop, read top to bottom.

AdamW, a schedule with warm-up, mixed precision as the device has it, clipping of the weights' gradients, length-grouped
batches, and every so many steps a state on disk that the same command continues from. The order of batches follows from the seed and the step
alone, so a resumed training sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from backends.fake_quant.training import range_parameters
from harness.checkpoints.origin import MADE_WITH
from harness.checkpoints.training.devices import process_group
from harness.checkpoints.training.display import Display
from harness.checkpoints.training.states import Progress, Training
from harness.errors import CheckpointError
from harness.machine.hardware import describe
from harness.machine.software import code_digest, software
from harness.suite.train import TrainSettings
from tasks.base import Features

MEGABATCH = 50
"""Batches that are sorted by length together, as in Hugging Face's LengthGroupedSampler."""


CURVE_POINTS = 100


RANGE_EPSILON = 1e-15
"""AdamW's, for learned ranges: far below their gradients, whatever the loss and the batch, so that a step has their rate's size."""


LOOK_EVERY = {"cpu": 1, "cuda": 10}
"""Steps between two looks at the loss: on a GPU each look waits for all that was queued."""


@dataclass(frozen=True)
class Trained:
    """seconds: of training alone, over all its resumptions. precision: fp32, bf16 or fp16, as it was. curve: (step, mean loss
    since the point before)."""

    seconds: float
    steps: int
    precision: str
    curve: list[tuple[int, float]]


Loss = Callable[[torch.nn.Module, dict[str, torch.Tensor]], torch.Tensor]


def train(
    model: torch.nn.Module,
    features: Features,
    settings: TrainSettings,
    *,
    seed: int,
    states: Path,
    device: str,
    loss_of: Loss | None = None,
    width: int | None = None,
    made_from: Mapping[str, str] = {},
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Trained:
    """Train `model` in place on `features` (with labels). `states`: folder of the states to resume from; removing it is up to
    the caller. `width`: tokens that every batch is padded to; default: its own longest. `made_from`: hashes by name of what
    the training starts from and is taught by; a state of others is not gone on with.

    Raises CheckpointError when the loss is not a number, and KeyboardInterrupt after a state was saved.
    """
    loss_of, together = loss_of or model_loss, process_group()
    torch.manual_seed(seed + together.rank * 1_000_003)
    model.to(device).train()
    called = together.wrap(model)
    ranges = range_parameters(model)
    learned = set(ranges)
    weights = {name: value for name, value in model.named_parameters() if value not in learned}
    optimizer = torch.optim.AdamW(
        _groups(weights, ranges, settings.weight_decay), lr=settings.learning_rate, fused=True
    )
    precision = settings.precision if settings.precision != "auto" else native_precision(device)
    scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
    training = Training(
        model, optimizer, scaler, together, _made_by(device, precision, together.size) | dict(made_from)
    )
    steps = settings.max_steps or math.ceil(settings.epochs * math.ceil(len(features) / settings.batch_size))

    progress = training.resume(states, say)
    if progress.step:
        say(f"resumes at step {progress.step:,} of {steps:,}")
    spent, start = progress.seconds, time.monotonic()
    look_every = LOOK_EVERY[device]
    point_every = look_every * math.ceil(steps / CURVE_POINTS / look_every)
    unseen: list[torch.Tensor] = []
    with Display(steps, progress.step, say) as display, delayed_interrupt() as interrupted:
        for step, chosen in _batches(features, settings, seed, progress.step, steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step, steps)
            mine, weight = together.share(chosen)
            batch = collate(features, mine, device, width or int(features.lengths[chosen].max()))
            with autocast(device, precision):
                loss = loss_of(called, batch) * weight
            torch.autograd.backward(scaler.scale(loss))
            if settings.max_grad_norm:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(weights.values(), settings.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

            unseen.append(loss.detach())
            progress.step, last = step, step == steps
            looks = last or step % look_every == 0
            stop = together.any(interrupted()) if looks or together.size == 1 else False
            save = stop or (step % settings.checkpoint_every == 0 and not last)
            if save or looks:
                progress.losses += _look(together.mean(torch.stack(unseen)), step)
                unseen.clear()
                display.update(step, progress.mean)
            if last or step % point_every == 0:
                progress.add_point()
            progress.seconds = spent + time.monotonic() - start
            if save:
                _save(training, states, progress, settings.keep_checkpoints, say)
            if stop:
                raise KeyboardInterrupt
    model.eval()
    return Trained(progress.seconds, steps, precision, progress.curve)


def model_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The model's own loss: mean cross-entropy of start and end, cross-entropy, or mean squared error."""
    loss: torch.Tensor = model(**batch).loss
    return loss


def _made_by(device: str, precision: str, processes: int) -> dict[str, Any]:
    machine = describe()
    return {
        "program": code_digest(),
        **software(MADE_WITH),
        "device": torch.cuda.get_device_name(0) if device == "cuda" else machine.cpu,
        "instruction flags": list(machine.flags),
        "number of processes": processes,
        "precision": precision,
    }


def native_precision(device: str) -> str:
    """The narrowest type in which the device computes products natively: bf16, fp16 with loss scaling, or fp32."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """Of step 1..steps: rises over the first ceil(warmup_ratio x steps), then falls by the schedule. Step s uses the rate
    after s - 1 updates, as in Hugging Face's Trainer, so with warm-up the very first is 0."""
    before, warm = step - 1, math.ceil(settings.warmup_ratio * steps)
    if before < warm:
        return settings.learning_rate * before / warm
    if settings.schedule == "constant":
        return settings.learning_rate
    left = 1 - (before - warm) / max(1, steps - warm)
    span = settings.learning_rate - settings.end_learning_rate
    return settings.end_learning_rate + span * float(left**settings.polynomial_power)


def epoch_order(
    lengths: np.ndarray[Any, Any], batch_size: int, seed: int, epoch: int, grouped: bool
) -> np.ndarray[Any, Any]:
    """Indices of one epoch. Grouped: shuffled, cut into megabatches, each sorted longest first (Hugging Face's
    LengthGroupedSampler), the longest sequence of all in the first batch so that memory runs out at once or never."""
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    if not grouped:
        return order
    size = min(MEGABATCH, max(1, len(lengths) // (batch_size * 4))) * batch_size
    groups = [order[at : at + size] for at in range(0, len(order), size)]
    groups = [group[np.argsort(-lengths[group], kind="stable")] for group in groups]
    longest = int(np.argmax([lengths[group[0]] for group in groups]))
    groups[0][0], groups[longest][0] = groups[longest][0], groups[0][0]
    return np.concatenate(groups)


def collate(
    features: Features, chosen: np.ndarray[Any, Any], device: str, width: int | None = None
) -> dict[str, torch.Tensor]:
    """A batch padded to `width`, or to its own longest."""
    lengths = features.lengths[chosen]
    longest = int(lengths.max())
    width = width or longest
    spare = ((0, 0), (0, width - longest))
    arrays = {
        "input_ids": np.pad(features.input_ids[chosen, :longest].astype(np.int64), spare),
        "token_type_ids": np.pad(features.token_type_ids[chosen, :longest].astype(np.int64), spare),
        "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
    } | {name: values[chosen] for name, values in features.labels.items()}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
    if torch.device(device).type != "cuda":
        return {name: one.to(device) for name, one in tensors.items()}
    return {name: one.pin_memory().to(device, non_blocking=True) for name, one in tensors.items()}  # else it would wait


@contextmanager
def delayed_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of a step, so that what is saved is a whole step; a second one does not wait.

    Yields a function that says whether one came. Outside the main thread signals are not ours: then it never says so.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def note(*_: object) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _groups(
    weights: Mapping[str, torch.nn.Parameter], ranges: Sequence[torch.nn.Parameter], decay: float
) -> list[dict[str, Any]]:
    """Weight decay leaves biases and LayerNorm alone (BERT), and learned ranges."""
    named = [(name, value) for name, value in weights.items() if value.requires_grad]
    plain = [value for name, value in named if name.endswith("bias") or "LayerNorm" in name]
    others = [value for name, value in named if not (name.endswith("bias") or "LayerNorm" in name)]
    return [
        {"params": others, "weight_decay": decay},
        {"params": plain, "weight_decay": 0.0},
        {"params": ranges, "weight_decay": 0.0, "eps": RANGE_EPSILON},
    ]


def _batches(
    features: Features, settings: TrainSettings, seed: int, done: int, steps: int
) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """(step, indices of its batch) of the steps after `done`."""
    size = settings.batch_size
    per_epoch = math.ceil(len(features) / size)
    order, current = np.zeros(0, np.int64), -1
    for before in range(done, steps):
        epoch, batch = divmod(before, per_epoch)
        if epoch != current:
            order, current = epoch_order(features.lengths, size, seed, epoch, settings.group_by_length), epoch
        yield before + 1, order[batch * size : (batch + 1) * size]


def _look(losses: torch.Tensor, step: int) -> list[float]:
    """The losses of the steps up to `step` as numbers. Raises CheckpointError at the first that is none."""
    values: list[float] = losses.tolist()
    for back, value in enumerate(values):
        if not math.isfinite(value):
            raise CheckpointError(
                f"training: the loss is {value} at step {step - len(values) + 1 + back};"
                " lower learning_rate, raise warmup_ratio, or set precision = 'fp32'"
            )
    return values


def _save(training: Training, folder: Path, progress: Progress, keep: int, say: Callable[[str], None]) -> None:
    """A disk that is full costs the state, not the training."""
    try:
        training.save(folder, progress, keep)
    except (OSError, SafetensorError) as error:
        say(f"the state at step {progress.step:,} could not be saved ({error}); training goes on")
