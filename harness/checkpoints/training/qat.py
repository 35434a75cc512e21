"""Quantization-aware training: a fine-tuned model is trained on with quantizers in it, which are taken out afterwards.

As in Jacob et al. 2018 (arXiv 1712.05877), and in AIMET, Vitis AI and Q8BERT, which build on it: calibration finds the first
ranges, the forward pass rounds every quantized tensor, and the ranges move with the training. Gradients pass the rounding
unchanged (straight-through); `backends.fake_quant.training` says how ranges are updated.

The result is a plain float checkpoint and its ranges. The weights are not rounded: every engine computes their integers from
the same floats and ranges.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from backends.base import BackendError, Device
from backends.fake_quant.calibrate import calibrate_model, noise_of
from backends.fake_quant.simulate import install, names_of, parameter_of
from backends.fake_quant.training import TrainedQuantizer, trained_quantizer
from backends.ranges import Ranges, TensorRange, check_range
from backends.schemes import Scheme, get_scheme
from backends.tensor_names import source
from harness.checkpoints.training.calibration import calibration_batches, padded_length
from harness.checkpoints.training.finetune import (
    build_model,
    head_of,
    reorder_classes,
    train_model,
    training_features,
)
from harness.errors import CheckpointError
from harness.plan.spec import CheckpointSpec
from harness.suite.train import TrainSettings
from tasks import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


NOTED_SHARE = 0.5
"""A note is kept where a moving average still holds at least this share of the calibrated range after training."""


def train_quantized(
    parent: Path,
    config: Any,
    task: Task,
    tokenizer: Tokenizer,
    spec: CheckpointSpec,
    settings: TrainSettings,
    states: Path,
    device: str,
) -> tuple[PreTrainedModel, dict[str, Any], Ranges]:
    """Train a model with the quantizers of `spec.scheme`. Returns it without them (FP32, on the CPU), what origin.json says of
    the training, and the trained ranges.

    parent: folder of the FP32 checkpoint. config: transformers', with the task's head. states: folder of the states that the
    training resumes from. Raises CheckpointError, TaskError, and BackendError where calibration finds no range for a tensor.
    """
    scheme = get_scheme(spec.scheme or "")
    features, examples = training_features(task, tokenizer, spec)
    batches = list(calibration_batches(spec, scheme, task, tokenizer))
    model = build_model(head_of(task), parent, config, spec.seed, device)
    reorder_classes(model, task, parent)

    start = time.monotonic()
    model.to(device).eval()  # type: ignore[arg-type]
    calibrated, _ = calibrate_model(model, batches, scheme, cast(Device, device))
    calibration_seconds = time.monotonic() - start

    quantizers: dict[str, TrainedQuantizer] = {
        name: trained_quantizer(calibrated[name], parameter_of(model, name))
        for name in names_of(model, scheme)
        if name == source(name)
    }
    remove_quantizers = install(model, scheme, quantizers)
    facts = train_model(model, features, spec, settings, states, device, width=padded_length(scheme, spec))
    trained = {name: quantizer.tensor_range() for name, quantizer in quantizers.items()}
    remove_quantizers()

    tensors = {name: trained[source(name)] for name in names_of(model, scheme)}
    check_ranges(tensors, spec)
    noise, evaluated = noise_of(model, batches, Ranges(scheme, tensors), cast(Device, device))
    model.to("cpu")  # type: ignore[arg-type]
    notes = _notes(scheme, facts["train_steps"])
    for note in notes:
        print(f"{spec.model}: {note}", file=sys.stderr, flush=True)
    calibration = {**evaluated, "sqnr_db": noise, "seed": spec.seed, "trained": facts["train_steps"], "notes": notes}
    facts |= {"train_examples": examples, "calibration_seconds": calibration_seconds}
    return model, facts, Ranges(scheme, tensors, calibration)


def check_ranges(tensors: dict[str, TensorRange], spec: CheckpointSpec) -> None:
    """Raises CheckpointError where training made a range unusable."""
    for name, tensor in tensors.items():
        try:
            check_range(name, tensor)
        except BackendError as error:
            raise CheckpointError(
                f"{spec.model}: a trained range is unusable: {error}; lower learning_rate or raise warmup_ratio"
            ) from None


def _notes(scheme: Scheme, steps: int) -> list[str]:
    """A note where training was too short for the decay of the moving average: ranges then stay close to the calibrated
    ones, as in some published recipes."""
    quantizer = scheme.activations
    share = quantizer.ema_decay**steps
    if quantizer.training != "follow" or share < NOTED_SHARE:
        return []
    return [
        f"after {steps:,} steps with a decay of {quantizer.ema_decay}, activation ranges still hold {share:.0%} of what"
        " calibration found"
    ]
