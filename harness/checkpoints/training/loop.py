"""The training loop; `train` reads top to bottom.

AdamW, a learning rate schedule with warm-up, the device's mixed precision, gradient clipping, batches grouped by length, and
every so many steps a state on disk, from which the same command resumes. Seed and step alone give the order of batches, so a
resumed training sees the batches that an uninterrupted one would have seen.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
"""Points of the loss curve that a checkpoint keeps, at most."""

RANGE_EPSILON = 1e-15
"""AdamW's epsilon for learned ranges. It is far below their gradients for any loss and batch size, so that the learning rate
alone sets the size of their steps."""

CHECK_EVERY = {"cpu": 1, "cuda": 10}
"""Steps between two checks of the loss, by device. On a GPU a check waits for all queued work."""

Loss = Callable[[torch.nn.Module, dict[str, torch.Tensor]], torch.Tensor]
"""(model, batch) -> the mean loss of the batch, a scalar."""


@dataclass(frozen=True)
class Trained:
    """How a training went."""

    seconds: float
    """Of training alone, summed over all resumptions."""
    steps: int
    precision: str
    """fp32, bf16 or fp16: the one that was used."""
    curve: list[tuple[int, float]]
    """(step, mean loss since the point before)."""


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
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Trained:
    """Train `model` in place on `features`, which have labels where the loss needs some.

    states: folder of the states to resume from; deleting it is up to the caller. loss_of: default: the model's own loss.
    width: number of tokens that every batch is padded to; default: its longest sequence. made_from: hashes, by name, of the
    checkpoints that the training starts from or learns from; a state with other hashes is not resumed. log: takes lines of
    progress.

    Raises CheckpointError where the loss is not finite, and KeyboardInterrupt after it has saved a state.
    """
    loss_of = loss_of or model_loss
    processes = process_group()
    torch.manual_seed(seed + processes.rank * 1_000_003)
    model.to(device).train()
    wrapped = processes.wrap(model)
    optimizer, clipped = make_optimizer(model, settings)
    precision = settings.precision if settings.precision != "auto" else native_precision(device)
    scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
    made_by = _made_by(device, precision, processes.size) | dict(made_from)
    training = Training(model, optimizer, scaler, processes, made_by)
    steps = settings.max_steps or math.ceil(settings.epochs * math.ceil(len(features) / settings.batch_size))

    seconds = 60 * settings.max_minutes if settings.max_minutes else math.inf
    progress = training.resume(states, log)
    if progress.step:
        log(f"resumes at step {progress.step:,} of {steps:,}")
    earlier_seconds, start = progress.seconds, time.monotonic()

    check_every = CHECK_EVERY[device]
    point_every = check_every * math.ceil(steps / CURVE_POINTS / check_every)
    unchecked: list[torch.Tensor] = []
    with Display(steps, progress.step, log) as display, delayed_interrupt() as interrupted:
        for step, batch_rows in batches(features, settings, seed, progress.step, steps):
            # one optimizer step; of several processes each computes its part of the batch
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, step, steps)
            rows, weight = processes.split_batch(batch_rows)
            batch = collate(features, rows, device, width or int(features.lengths[batch_rows].max()))
            with autocast(device, precision):
                loss = loss_of(wrapped, batch) * weight
            _descend(loss, optimizer, scaler, clipped, settings.max_grad_norm)

            # check the loss, and save a state where one is due or Ctrl-C was pressed
            unchecked.append(loss.detach())
            progress.step, check = step, step == steps or step % check_every == 0
            late = check and seconds < math.inf and processes.any(earlier_seconds + time.monotonic() - start >= seconds)
            last = step == steps or late
            stop = processes.any(interrupted()) if check or processes.size == 1 else False
            save = stop or (step % settings.checkpoint_every == 0 and not last)
            if save or check:
                progress.losses += _finite_losses(processes.mean(torch.stack(unchecked)), step)
                unchecked.clear()
                display.update(step, progress.mean_loss)
            if last or step % point_every == 0:
                progress.add_point()
            progress.seconds = earlier_seconds + time.monotonic() - start
            if save:
                _save_state(training, states, progress, settings.keep_checkpoints, log)
            if stop:
                raise KeyboardInterrupt
            if last:
                break
    if progress.step < steps:
        log(f"stops at step {progress.step:,} of {steps:,}: {settings.max_minutes:g} minutes are over")
    model.eval()
    return Trained(progress.seconds, progress.step, precision, progress.curve)


def _descend(
    loss: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    clipped: list[torch.nn.Parameter],
    norm: float,
) -> None:
    """One step of the optimizer. norm: to which the gradients are clipped; 0: they are not."""
    torch.autograd.backward(scaler.scale(loss))
    if norm:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(clipped, norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def model_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The model's own loss: cross-entropy, the mean of both ends' for question answering, or mean squared error."""
    loss: torch.Tensor = model(**batch).loss
    return loss


def make_optimizer(
    model: torch.nn.Module, settings: TrainSettings
) -> tuple[torch.optim.Optimizer, list[torch.nn.Parameter]]:
    """AdamW, and the parameters whose gradients are clipped: all but learned quantization ranges. As in BERT, biases and
    LayerNorm do not decay; ranges do not decay either and have their own epsilon."""
    ranges = range_parameters(model)
    not_weights = set(ranges)
    weights = {name: value for name, value in model.named_parameters() if value not in not_weights}
    trained = [(name, value) for name, value in weights.items() if value.requires_grad]
    without_decay = [value for name, value in trained if name.endswith("bias") or "LayerNorm" in name]
    with_decay = [value for name, value in trained if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [
        {"params": with_decay, "weight_decay": settings.weight_decay},
        {"params": without_decay, "weight_decay": 0.0},
        {"params": ranges, "weight_decay": 0.0, "eps": RANGE_EPSILON},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True), list(weights.values())


def native_precision(device: str) -> str:
    """The narrowest type that the device multiplies natively: bf16, fp16 (with loss scaling) or fp32."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """PyTorch's mixed precision; with fp32 nothing changes."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


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


def batches(
    features: Features, settings: TrainSettings, seed: int, done: int, steps: int
) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
    """(step, rows of its batch) of the steps `done` + 1 to `steps`."""
    size = settings.batch_size
    per_epoch = math.ceil(len(features) / size)
    order, order_epoch = np.zeros(0, np.int64), -1
    for steps_before in range(done, steps):
        epoch, batch = divmod(steps_before, per_epoch)
        if epoch != order_epoch:
            order = epoch_order(features.lengths, size, seed, epoch, settings.group_by_length)
            order_epoch = epoch
        yield steps_before + 1, order[batch * size : (batch + 1) * size]


def epoch_order(
    lengths: np.ndarray[Any, Any], batch_size: int, seed: int, epoch: int, grouped: bool
) -> np.ndarray[Any, Any]:
    """The rows of one epoch, in order. grouped: they are shuffled, cut into megabatches, and each megabatch is sorted by
    length, longest first (Hugging Face's LengthGroupedSampler). The longest row of all comes first, so that memory runs out
    in the first step or never."""
    order = np.random.default_rng([seed, epoch]).permutation(len(lengths))
    if not grouped:
        return order
    size = min(MEGABATCH, max(1, len(lengths) // (batch_size * 4))) * batch_size
    megabatches = [order[start : start + size] for start in range(0, len(order), size)]
    megabatches = [rows[np.argsort(-lengths[rows], kind="stable")] for rows in megabatches]
    longest = int(np.argmax([lengths[rows[0]] for rows in megabatches]))
    megabatches[0][0], megabatches[longest][0] = megabatches[longest][0], megabatches[0][0]
    return np.concatenate(megabatches)


def collate(
    features: Features, rows: np.ndarray[Any, Any], device: str, width: int | None = None
) -> dict[str, torch.Tensor]:
    """A batch as tensors, (rows, width) int64 and the labels. width: default: the longest of the rows."""
    lengths = features.lengths[rows]
    longest = int(lengths.max())
    width = width or longest
    padding = ((0, 0), (0, width - longest))
    arrays = {
        "input_ids": np.pad(
            features.input_ids[rows, :longest].astype(np.int64), padding, constant_values=features.pad_id
        ),
        "token_type_ids": np.pad(features.token_type_ids[rows, :longest].astype(np.int64), padding),
        "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
    } | {name: _cut(values[rows], longest, width) for name, values in features.labels.items()}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
    if torch.device(device).type != "cuda":
        return {name: tensor.to(device) for name, tensor in tensors.items()}
    # from pinned memory the copy runs while the GPU computes
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()}


def _cut(labels: np.ndarray[Any, Any], longest: int, width: int) -> np.ndarray[Any, Any]:
    """Labels as they are; those of tokens, which are (rows, tokens) integers, as wide as the batch."""
    if labels.ndim < 2 or not np.issubdtype(labels.dtype, np.integer):
        return labels
    return np.pad(labels[:, :longest], ((0, 0), (0, width - longest)), constant_values=-100)


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """The learning rate of a step, 1 to `steps`. It rises over the first ceil(warmup_ratio x steps) and then follows the
    schedule. Step s has the rate after s - 1 updates, as in Hugging Face's Trainer, so with warm-up that of step 1 is 0."""
    updates, warmup = step - 1, math.ceil(settings.warmup_ratio * steps)
    if updates < warmup:
        return settings.learning_rate * updates / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    remaining = 1 - (updates - warmup) / max(1, steps - warmup)
    span = settings.learning_rate - settings.end_learning_rate
    return settings.end_learning_rate + span * float(remaining**settings.polynomial_power)


@contextmanager
def delayed_interrupt() -> Iterator[Callable[[], bool]]:
    """Delay Ctrl-C until the end of a step, so that the saved state is that of a whole step. A second Ctrl-C acts at once.

    Yields a function that says whether Ctrl-C was pressed. Outside the main thread Python delivers no signals: there it always
    returns False.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def handler(*_: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    earlier_handler = signal.signal(signal.SIGINT, handler)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, earlier_handler)


def _finite_losses(losses: torch.Tensor, step: int) -> list[float]:
    """The losses of the steps up to `step`. Raises CheckpointError at the first that is not finite."""
    values: list[float] = losses.tolist()
    for index, value in enumerate(values):
        if not math.isfinite(value):
            raise CheckpointError(
                f"training: the loss is {value} at step {step - len(values) + 1 + index};"
                " lower learning_rate, raise warmup_ratio, or set precision = 'fp32'"
            )
    return values


def _save_state(training: Training, folder: Path, progress: Progress, keep: int, log: Callable[[str], None]) -> None:
    """Save a state. Where that fails, on a full disk for example, the training goes on without it."""
    try:
        training.save(folder, progress, keep)
    except (OSError, SafetensorError) as error:
        log(f"the state at step {progress.step:,} could not be saved ({error}); training goes on")
