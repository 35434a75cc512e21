"""The training loop, read top to bottom.

AdamW, a schedule with warm-up, mixed precision as the device has it, gradient clipping, length-grouped batches, and a state
on disk every so many steps that the same command continues from. The order of batches follows from the seed and the epoch
alone, so a resumed training sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from harness.errors import CheckpointError
from harness.training.settings import TrainSettings
from tasks.base import Features

MEGABATCH = 50
"""Batches that are sorted by length together, as in Hugging Face's LengthGroupedSampler."""
CURVE_POINTS = 100
SAY_SECONDS = 30.0


@dataclass(frozen=True)
class Trained:
    """seconds: of training alone, over all its resumptions. curve: (step, mean loss since the point before)."""

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
    state: Path,
    device: str,
    loss_of: Loss | None = None,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Trained:
    """Train `model` in place on `features` (with labels). `state`: folder of states to resume from.

    Raises CheckpointError when the loss is not a number. KeyboardInterrupt saves the state first.
    """
    loss_of = loss_of or model_loss
    torch.manual_seed(seed)
    model.to(device).train()
    optimizer = torch.optim.AdamW(_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True)
    batches = math.ceil(len(features) / settings.batch_size)
    steps = settings.max_steps or max(1, math.ceil(settings.epochs * batches))
    precision = settings.precision if settings.precision != "auto" else native_precision(device)
    scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")

    done, spent, curve = _resume(state, model, optimizer, scaler)
    if done:
        say(f"resumes at step {done} of {steps}")
    start = last_said = time.monotonic()
    first, loss_sum, loss_count = done, 0.0, 0
    with progress(steps, done, say) as bar:
        try:
            for step, chosen in enumerate(_batches(features, settings, seed, done, steps), done + 1):
                rate = learning_rate(settings, step, steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                batch = collate(features, chosen, device)
                with autocast(device, precision):
                    loss = loss_of(model, batch)
                value = float(loss.detach())
                if not math.isfinite(value) and precision != "fp16":
                    raise CheckpointError(
                        f"training: the loss is {value} at step {step}; use a lower learning_rate or a longer warmup_ratio"
                    )
                scaler.scale(loss).backward()
                if settings.max_grad_norm:
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
                done, loss_sum, loss_count = step, loss_sum + value, loss_count + 1
                if step % max(1, steps // CURVE_POINTS) == 0 or step == steps:
                    curve.append((step, loss_sum / loss_count))
                    loss_sum, loss_count = 0.0, 0
                bar(step, curve[-1][1] if curve else value)
                if not sys.stderr.isatty() and time.monotonic() - last_said > SAY_SECONDS:
                    last_said = time.monotonic()
                    pace = (last_said - start) / (step - first)
                    shown = curve[-1][1] if curve else value
                    say(f"step {step} of {steps}, loss {shown:.3f}, {pace:.2f} s a step, {pace * (steps - step):.0f} s left")
                if step % settings.checkpoint_every == 0 and step < steps:
                    _save(state, step, spent + time.monotonic() - start, curve, model, optimizer, scaler, settings.keep_checkpoints)
        except KeyboardInterrupt:
            _save(state, done, spent + time.monotonic() - start, curve, model, optimizer, scaler, settings.keep_checkpoints)
            raise
    model.eval()
    return Trained(spent + time.monotonic() - start, steps, precision, curve)


def model_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The model's own loss: mean cross-entropy of start and end, cross-entropy, or mean squared error."""
    loss: torch.Tensor = model(**batch).loss
    return loss


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
    after s-1 updates, as in Hugging Face's Trainer, so the very first is 0 with warm-up."""
    before, warm = step - 1, math.ceil(settings.warmup_ratio * steps)
    if before < warm:
        return settings.learning_rate * before / warm
    if settings.schedule == "constant":
        return settings.learning_rate
    power = settings.polynomial_power if settings.schedule == "polynomial" else 1.0
    left = 1 - (before - warm) / max(1, steps - warm)
    return settings.end_learning_rate + (settings.learning_rate - settings.end_learning_rate) * left**power


def _groups(model: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay leaves biases and LayerNorm alone (BERT)."""
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    plain = [value for name, value in named if name.endswith("bias") or "LayerNorm" in name]
    others = [value for name, value in named if not (name.endswith("bias") or "LayerNorm" in name)]
    return [{"params": others, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]


def epoch_order(lengths: np.ndarray[Any, Any], batch_size: int, seed: int, epoch: int, grouped: bool) -> np.ndarray[Any, Any]:
    """Indices of one epoch. Grouped: shuffled, cut into megabatches, each sorted longest first (Hugging Face's
    LengthGroupedSampler), the longest sequence of all in the first batch so that memory runs out at once or never."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    if not grouped:
        return order
    size = min(MEGABATCH, max(1, len(lengths) // (batch_size * 4))) * batch_size
    groups = [order[at : at + size] for at in range(0, len(order), size)]
    groups = [group[np.argsort(-lengths[group], kind="stable")] for group in groups]
    longest = int(np.argmax([lengths[group[0]] for group in groups]))
    groups[0][0], groups[longest][0] = groups[longest][0], groups[0][0]
    return np.concatenate(groups)


def _batches(features: Features, settings: TrainSettings, seed: int, done: int, steps: int) -> Iterator[np.ndarray[Any, Any]]:
    size = settings.batch_size
    per_epoch = math.ceil(len(features) / size)
    order, epoch = np.zeros(0, np.int64), -1
    for step in range(done, steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = epoch_order(features.lengths, size, seed, epoch, settings.group_by_length)
        at = step % per_epoch * size
        yield order[at : at + size]


def collate(features: Features, chosen: np.ndarray[Any, Any], device: str) -> dict[str, torch.Tensor]:
    """A batch padded to its own longest."""
    lengths = features.lengths[chosen]
    width = int(lengths.max())
    arrays = {
        "input_ids": features.input_ids[chosen, :width].astype(np.int64),
        "token_type_ids": features.token_type_ids[chosen, :width].astype(np.int64),
        "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
    } | {name: values[chosen] for name, values in features.labels.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(values)).to(device) for name, values in arrays.items()}


def progress(steps: int, done: int, say: Callable[[str], None]) -> AbstractContextManager[Callable[[int, float], None]]:
    """A live bar with rate, loss and time left where a terminal shows it; lines otherwise (said by the loop)."""
    from contextlib import contextmanager

    @contextmanager
    def bar() -> Iterator[Callable[[int, float], None]]:
        if not sys.stderr.isatty():
            yield lambda step, loss: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn(), TimeRemainingColumn())
        start = time.monotonic()
        with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as shown:
            task = shown.add_task("training", total=steps, completed=done, text="")

            def update(step: int, loss: float) -> None:
                pace = (step - done) / (time.monotonic() - start)
                shown.update(task, completed=step, text=f"loss {loss:.3f}, {pace:.1f} steps/s")

            yield update

    return bar()


def _save(
    state: Path,
    step: int,
    seconds: float,
    curve: list[tuple[int, float]],
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    keep: int,
) -> None:
    """One folder a state, whole or not at all; tensors as safetensors, the rest as JSON."""
    state.mkdir(parents=True, exist_ok=True)
    part = state / f".part-{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}, part / "model.safetensors")
    moments = {
        f"{index}.{name}": value.detach().cpu().contiguous()
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    random = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    save_file(moments | {f"rng.{name}": value for name, value in random.items()}, part / "optimizer.safetensors")
    (part / "state.json").write_text(json.dumps({"step": step, "seconds": seconds, "curve": curve, "scaler": scaler.state_dict()}))
    target = state / f"step-{step:09d}"
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for old in sorted(state.glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def _resume(
    state: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> tuple[int, float, list[tuple[int, float]]]:
    """(steps done, seconds spent, curve) of the newest state, loaded into model and optimizer; zeros without one."""
    found = sorted(state.glob("step-*"))
    if not found:
        return 0, 0.0, []
    folder = found[-1]
    content = json.loads((folder / "state.json").read_text())
    model.load_state_dict(load_file(folder / "model.safetensors"))
    stored = load_file(folder / "optimizer.safetensors")
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in stored.items():
        index, _, field = name.partition(".")
        if index != "rng":
            moments.setdefault(int(index), {})[field] = value
    if moments:
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(stored["rng.torch"])
    if "rng.cuda" in stored and torch.cuda.is_available():
        torch.cuda.set_rng_state(stored["rng.cuda"])
    scaler.load_state_dict(content["scaler"])
    return content["step"], content["seconds"], [(step, loss) for step, loss in content["curve"]]
