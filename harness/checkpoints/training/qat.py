"""Quantization-aware training: a fine-tuned model trained on with quantizers in it, then folded back to a plain checkpoint.

The order of things is that of Jacob et al. (arXiv 1712.05877) and of what AIMET, Vitis AI and Q8BERT build on it: ranges from
calibration, training in which every quantized tensor is rounded on its way forward, and ranges that move with it. Gradients
pass the rounding as if it were not there; `backends.fake_quant.training` says what they do to ranges.

What comes out is the model as it was before, weights and all in float, and its ranges beside it. Rounding the weights is
left to whoever runs it: every engine takes their integers from the same numbers.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from backends.base import BackendError, Device
from backends.fake_quant.calibrate import calibrate_model, noise_of
from backends.fake_quant.schemes import Scheme, get_scheme
from backends.fake_quant.simulate import install, names_of, parameter_of
from backends.fake_quant.tensors import source
from backends.fake_quant.training import TrainedQuantizer, trained_quantizer
from backends.ranges import Ranges, TensorRange, check_range
from harness.checkpoints.training.calibration import calibration_batches, width_of
from harness.checkpoints.training.finetune import begin, model_class, order_classes, run, training_features
from harness.errors import CheckpointError
from harness.plan.spec import CheckpointSpec
from harness.suite.train import TrainSettings
from tasks import Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


KEPT = 0.5
"""Share of the first range that a moving average may still hold at the end; above it, a training was short for its decay."""


def qat(
    parent: Path,
    config: Any,
    task: Task,
    tokenizer: Tokenizer,
    spec: CheckpointSpec,
    settings: TrainSettings,
    state: Path,
    device: str,
) -> tuple[PreTrainedModel, dict[str, Any], Ranges]:
    """The trained model without its quantizers (FP32, on the CPU), what origin.json says of the training, and the ranges.

    parent: folder of the FP32 checkpoint. config: transformers', made the task's. Raises CheckpointError, TaskError, and
    BackendError where a tensor has no range to begin with.
    """
    scheme = get_scheme(spec.scheme or "")
    features, examples = training_features(task, tokenizer, spec)
    batches = list(calibration_batches(spec, scheme, task, tokenizer))
    model = begin(model_class(task), parent, config, spec.seed, device)
    order_classes(model, task, parent)
    started = time.monotonic()
    model.to(device).eval()  # type: ignore[arg-type]
    first, _ = calibrate_model(model, batches, scheme, cast(Device, device))
    calibration_seconds = time.monotonic() - started

    quantizers: dict[str, TrainedQuantizer] = {
        name: trained_quantizer(name, first[name], parameter_of(model, name))
        for name in names_of(model, scheme)
        if name == source(name)
    }
    take_out = install(model, scheme, quantizers)
    facts = run(model, features, spec, settings, state, device, width=width_of(scheme, spec))
    trained = {name: quantizer.tensor_range() for name, quantizer in quantizers.items()}
    take_out()

    tensors = {name: trained[source(name)] for name in names_of(model, scheme)}
    _check(tensors, spec)
    noise, seen = noise_of(model, batches, Ranges(scheme, tensors), cast(Device, device))
    model.to("cpu")  # type: ignore[arg-type]
    notes = _notes(scheme, facts["train_steps"])
    for note in notes:
        print(f"{spec.model}: {note}", file=sys.stderr, flush=True)
    about = {**seen, "sqnr_db": noise, "seed": spec.seed, "trained": facts["train_steps"], "notes": notes}
    facts |= {"train_examples": examples, "calibration_seconds": calibration_seconds}
    return model, facts, Ranges(scheme, tensors, about)


def _check(tensors: dict[str, TensorRange], spec: CheckpointSpec) -> None:
    for name, tensor in tensors.items():
        try:
            check_range(name, tensor)
        except BackendError as error:
            raise CheckpointError(
                f"{spec.model}: training spoilt a range: {error}; lower learning_rate or raise warmup_ratio"
            ) from None


def _notes(scheme: Scheme, steps: int) -> list[str]:
    """A range that follows a slow average hardly leaves its first value in a short training: part of a published recipe, and
    worth knowing."""
    quantizer = scheme.activations
    kept = quantizer.ema_decay**steps
    if quantizer.training != "follow" or kept < KEPT:
        return []
    return [
        f"after {steps:,} steps with a decay of {quantizer.ema_decay}, activation ranges still hold {kept:.0%} of what"
        " calibration found"
    ]
