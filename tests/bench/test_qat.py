"""What quantizers add to a training step on a CPU, at MiniLM's size: it takes less than three times an FP32 step."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends.checkpoint import read_architecture
from backends.fake_quant.calibrate import calibrate_model
from backends.fake_quant.simulate import install, names_of, parameter_of
from backends.fake_quant.training import trained_quantizer
from backends.schemes import get_scheme, scheme_names
from backends.tensor_names import source
from backends.torch_models import load_model
from harness.checkpoints.training.cpu import prepare_process, register_attention, replace_dropout
from harness.checkpoints.training.loop import autocast, native_precision
from harness.machine.hardware import cores
from tests.backends.checkpoints import MINILM, make_checkpoint

STEPS = 4
SHAPES = [(name, 128, 16) for name in scheme_names()] + [
    # Attention scores grow with the square of the length, and so does the work of rounding them.
    (name, 384, 4)
    for name in scheme_names()
    if get_scheme(name).tensors == "op_outputs"
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare_process(cores())
    return make_checkpoint(tmp_path_factory.mktemp("minilm"), **MINILM)


def model_in_training(folder: Path) -> Any:
    model: Any = load_model(folder, read_architecture(folder))
    model.config._attn_implementation = register_attention()
    replace_dropout(model)
    return model


def step(model: Any, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor], precision: str) -> float:
    started = time.perf_counter()
    with autocast("cpu", precision):
        loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - started


@pytest.mark.parametrize("precision", sorted({"fp32", native_precision("cpu")}))
@pytest.mark.parametrize(("scheme", "length", "samples"), SHAPES)
def test_a_step_costs_less_than_three_of_fp32(
    folder: Path, scheme: str, length: int, samples: int, precision: str
) -> None:
    """Steps alternate and medians are compared. Batches are equal, so the difference is the recipe's, not its padding's."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(1000, 30_000, (samples, length)))
    mask = torch.ones_like(ids)
    mask[: samples // 2, length // 2 :] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    plain, quantized = model_in_training(folder), model_in_training(folder)
    chosen = get_scheme(scheme)
    first, _ = calibrate_model(quantized, [{name: values.numpy()[:2] for name, values in batch.items()}], chosen)
    names = [name for name in names_of(quantized, chosen) if source(name) == name]
    install(
        quantized,
        chosen,
        {name: trained_quantizer(first[name], parameter_of(quantized, name)) for name in names},
    )
    batch |= {"start_positions": torch.zeros(samples).long(), "end_positions": torch.ones(samples).long()}
    seconds: dict[str, list[float]] = {"plain": [], "quantized": []}
    runs = []
    for name, model in (("plain", plain), ("quantized", quantized)):
        runs.append((name, model.train(), torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)))
    for _ in range(STEPS + 1):
        for name, model, optimizer in runs:
            seconds[name].append(step(model, optimizer, batch, precision))
    middle = {name: statistics.median(steps[1:]) for name, steps in seconds.items()}
    print(
        f"{scheme}, {length} tokens, {precision}: {middle['plain']:.2f} s a step, {middle['quantized']:.2f} s with quantizers,"
        f" x {middle['quantized'] / middle['plain']:.2f}"
    )
    assert middle["quantized"] < 3 * middle["plain"]
