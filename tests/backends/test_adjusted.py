"""SmoothQuant's factors and corrected biases: exact in float, the same in the simulation and on engines, and what they are for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForQuestionAnswering

from backends import BackendError
from backends.checkpoint import read_architecture
from backends.fake_quant.adjust import adjust
from backends.fake_quant.calibrate import calibrate
from backends.fake_quant.simulate import simulate
from backends.processor import saturates_integer_products
from backends.ranges import Ranges, read_ranges
from backends.schemes import changed_scheme, get_scheme
from backends.torch_models import load_model
from tests.backends.checkpoints import add_ranges, make_batch, make_checkpoint
from tests.backends.family_checkpoints import make_family_checkpoint
from tests.backends.running import real_tokens, run_real_tokens, run_unfused

SMOOTH = changed_scheme("engine_int8", {"smoothing": 0.5})
BOTH = changed_scheme("engine_int8", {"smoothing": 0.5, "bias_correction": True})


def with_outliers(folder: Path) -> Path:
    """One channel of each LayerNorm's output but the last far above the others, as encoders have them."""
    from safetensors.torch import load_file, save_file

    file = make_checkpoint(folder) / "model.safetensors"
    tensors = load_file(file)
    for name, values in tensors.items():
        if name.endswith("LayerNorm.weight") and "layer.1.output" not in name:
            values[7] = 12.0
    save_file(tensors, file, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_outliers(tmp_path_factory.mktemp("adjusted") / "model")


def test_smoothing_changes_nothing_in_float(folder: Path) -> None:
    """Against transformers' own model; and it does change the weights."""
    add_ranges(folder, SMOOTH)
    ranges = read_ranges(folder)
    batch = {name: torch.from_numpy(values) for name, values in make_batch(1).items()}
    plain: Any = BertForQuestionAnswering.from_pretrained(folder).train(False)
    smoothed: Any = load_model(folder, read_architecture(folder))
    before = smoothed.get_submodule("bert.encoder.layer.0.attention.self.value").weight.detach().clone()
    adjust(smoothed, ranges.adjustments)
    assert len(ranges.adjustments.factors) == 2 * 4
    assert not torch.allclose(before, smoothed.get_submodule("bert.encoder.layer.0.attention.self.value").weight)
    with torch.no_grad():
        wanted = plain(**batch)
        assert (smoothed(**batch).start_logits - wanted.start_logits).abs().max() < 1e-4
        assert (smoothed(**batch).end_logits - wanted.end_logits).abs().max() < 1e-4


def test_parts_alone_keep_the_grid_of_their_weights(folder: Path) -> None:
    """Value's rows lie on their grid as they do with all parts quantized, so that no part alone moves the model more than a step."""
    add_ranges(folder, SMOOTH)
    ranges, architecture = read_ranges(folder), read_architecture(folder)
    alone = changed_scheme("engine_int8", {"smoothing": 0.5, "keep_float": ["*.dense", "encoder.layer.1.*"]})
    part = ranges.only(get_scheme(alone), architecture)
    assert set(part.adjustments.factors) == {
        "encoder.layer.0.attention.self.query.input", "encoder.layer.0.attention.output.dense.input"
    }  # fmt: skip
    name = "encoder.layer.0.attention.self.value"
    rounded = []
    for one in (ranges, part):
        model: Any = simulate(load_model(folder, architecture), one)
        rounded.append(model.get_submodule(f"bert.{name}").weight.detach())
    assert torch.equal(rounded[0], rounded[1])


def test_factors_are_those_of_the_paper(folder: Path) -> None:
    """Equation 4, from the values that transformers' hooks see."""
    add_ranges(folder, SMOOTH)
    model: Any = BertForQuestionAnswering.from_pretrained(folder).train(False)
    seen: list[torch.Tensor] = []
    linear = model.bert.encoder.layer[1].output.dense
    linear.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        for seed in range(100, 104):
            batch = {name: torch.from_numpy(values) for name, values in make_batch(seed).items()}
            model(**batch)
            seen[-1] = seen[-1][batch["attention_mask"].bool()]
    wanted = (torch.cat(seen).abs().amax(0) / linear.weight.abs().amax(0)).sqrt()
    found = read_ranges(folder).adjustments.factors["encoder.layer.1.output.dense.input"]
    assert found == pytest.approx(wanted.detach().numpy(), rel=1e-5)


@pytest.mark.parametrize(
    "scheme", [SMOOTH, BOTH, changed_scheme("q8bert", {"smoothing": 0.7, "bias_correction": True})]
)
def test_the_simulation_and_the_integer_graph_agree(folder: Path, tmp_path: Path, scheme: str) -> None:
    add_ranges(folder, scheme)
    batch = make_batch(1)
    exact = run_real_tokens("torch_fp32", folder, batch, tmp_path)
    simulated = run_real_tokens("fake_quant_w8a8", folder, batch, tmp_path)
    moved = np.abs(simulated - exact).max()
    assert moved > 1e-3
    unfused = run_unfused(folder, batch, tmp_path / "model.onnx", quantize="u8")
    assert np.abs(unfused - simulated).max() < 0.1 * moved
    engines = ["onnxruntime_int8", *([] if saturates_integer_products() else ["openvino_int8"])]
    for engine in engines:
        assert np.abs(run_real_tokens(engine, folder, batch, tmp_path) - simulated).max() < 0.1 * moved


def error(folder: Path, scheme: str, cache: Path) -> float:
    add_ranges(folder, scheme)
    batch = make_batch(5)
    exact, found = (run_real_tokens(name, folder, batch, cache) for name in ("torch_fp32", "fake_quant_w8a8"))
    return float(np.mean((found - exact) ** 2))


def test_smoothing_helps_a_model_with_outliers(folder: Path, tmp_path: Path) -> None:
    plain = changed_scheme("engine_int8", {"activations": {"estimator": "min_max"}})
    smooth = changed_scheme("engine_int8", {"activations": {"estimator": "min_max"}, "smoothing": 0.5})
    assert error(folder, smooth, tmp_path) < 0.5 * error(folder, plain, tmp_path)


def test_corrected_layers_have_the_least_relative_error(tmp_path: Path) -> None:
    """Of the first layer's query, with a coarse grid: NumPy's weighted least squares of float outputs less rounded ones."""
    folder = make_checkpoint(tmp_path / "model")
    scheme = changed_scheme(
        "engine_int8", {"activations": {"estimator": "percentile", "percentile": 90}, "bias_correction": True}
    )
    add_ranges(folder, scheme)
    ranges = read_ranges(folder)
    name = "encoder.layer.0.attention.self.query"
    model: Any = BertForQuestionAnswering.from_pretrained(folder).train(False)
    differences, sizes = [], []
    for seed in range(100, 104):
        batch = {name: torch.from_numpy(values) for name, values in make_batch(seed).items()}
        with torch.no_grad():
            states = model.bert.embeddings(batch["input_ids"], batch["token_type_ids"])[
                batch["attention_mask"].bool()
            ].numpy()
        query = model.bert.encoder.layer[0].attention.self.query
        weight = query.weight.detach().numpy()
        inputs, weights = ranges.tensors[f"{name}.input"], ranges.tensors[f"{name}.weight"]
        rounded = inputs.dequantize(inputs.quantize(states)) @ weights.dequantize(weights.quantize(weight)).T
        differences.append(states @ weight.T - rounded)
        sizes.append(np.linalg.norm(states @ weight.T + query.bias.detach().numpy(), axis=1))
    columns = 1 / np.concatenate(sizes)[:, None]
    wanted = np.linalg.lstsq(columns, np.concatenate(differences) * columns, rcond=None)[0][0]
    assert ranges.adjustments.corrections[name] == pytest.approx(wanted, abs=1e-5)
    assert np.abs(wanted).max() > 1e-3
    assert set(ranges.adjustments.corrections) == {
        one for one in read_architecture(folder).linears() if one.startswith("encoder.")
    }


def test_a_clipped_outlier_shifts_no_other_token(tmp_path: Path) -> None:
    """One token, in every sequence, whose feed-forward output is far longer than others', and a range that clips it, so that the
    plain mean of the error is not small beside the other tokens' outputs. Of every layer the error relative to each token's output is lower
    with the corrections than without."""
    from safetensors.torch import load_file, save_file

    folder = make_checkpoint(tmp_path / "model")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["bert.embeddings.word_embeddings.weight"][:, 3] = 0.0
    tensors["bert.embeddings.word_embeddings.weight"][2, 3] = 40.0
    tensors["bert.encoder.layer.0.intermediate.dense.weight"][:4, 3] = 40.0
    tensors["bert.encoder.layer.0.output.dense.weight"][:, :4] *= 2.0
    save_file(tensors, file, {"format": "pt"})
    batches = [make_batch(seed) for seed in range(100, 104)]
    for batch in batches:
        batch["input_ids"][:, 0] = 2
    changes = {"activations": {"estimator": "percentile", "percentile": 99.0}}
    plain, corrected = (
        calibrate(folder, batches, changed_scheme("engine_int8", changes | more), 1)
        for more in ({}, {"bias_correction": True})
    )
    exact = outputs_of(folder, None, batches)
    size = {name: (values**2).sum(-1) for name, values in exact.items()}
    lengths = np.sqrt(size["encoder.layer.0.output.dense"])
    assert lengths[0] > 8 * np.median(lengths)
    before, after = (
        {name: values - exact[name] for name, values in outputs_of(folder, one, batches).items()}
        for one in (plain, corrected)
    )
    assert np.linalg.norm(before["encoder.layer.0.output.dense"].mean(0)) > np.median(lengths) / 4
    for name, error in after.items():
        assert ((error**2).sum(-1) / size[name]).mean() < ((before[name] ** 2).sum(-1) / size[name]).mean()


def outputs_of(folder: Path, ranges: Ranges | None, batches: list[dict[str, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Of each linear layer of the encoder, what it computes of real tokens: (tokens, outputs)."""
    model: Any = load_model(folder, read_architecture(folder))
    if ranges is not None:
        simulate(model, ranges)
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    mask = np.zeros(0, bool)
    for name in (one for one in read_architecture(folder).linears() if one.startswith("encoder.")):
        found[name] = []
        model.get_submodule(f"bert.{name}").register_forward_hook(
            lambda _module, _inputs, output, name=name: found[name].append(output.numpy()[mask])
        )
    for batch in batches:
        mask = batch["attention_mask"].astype(bool)
        with torch.no_grad():
            model(**{name: torch.from_numpy(values) for name, values in batch.items()})
    return {name: np.concatenate(values) for name, values in found.items()}


def test_a_file_of_ranges_is_checked(folder: Path) -> None:
    add_ranges(folder, BOTH)
    file = folder / "ranges.json"
    value = json.loads(file.read_text())
    for change, words in (
        ({"factors": {}}, "'factors' must hold exactly the tensors"),
        ({"corrections": value["corrections"] | {"encoder.layer.0.output.dense": [1.0]}}, "must be 64 finite numbers"),
        ({"factors": {name: [-one for one in numbers] for name, numbers in value["factors"].items()}}, "must be positive"),
    ):  # fmt: skip
        file.write_text(json.dumps(value | change))
        with pytest.raises(BackendError, match=words):
            read_ranges(folder)


def test_a_scheme_without_them_is_as_it_was(folder: Path) -> None:
    add_ranges(folder, "engine_int8")
    value = json.loads((folder / "ranges.json").read_text())
    assert set(value) == {"format", "scheme", "calibration", "tensors"}
    assert not {"smoothing", "bias_correction"} & set(value["scheme"])


@pytest.mark.parametrize("family", ["modernbert", "distilbert", "mpnet", "roberta"])
def test_every_layout_can_have_them(family: str, tmp_path: Path) -> None:
    folder = make_family_checkpoint(tmp_path / "model", family, None)
    add_ranges(folder, BOTH)
    batch = make_batch(1)
    exact, simulated = (run_real_tokens(name, folder, batch, tmp_path) for name in ("torch_fp32", "fake_quant_w8a8"))
    unfused = run_unfused(folder, batch, tmp_path / "model.onnx", quantize="u8")
    assert np.sqrt(np.mean((unfused - simulated) ** 2)) < 0.2 * np.sqrt(np.mean((simulated - exact) ** 2))
    model = load_model(folder, read_architecture(folder))
    adjustments = read_ranges(folder).adjustments
    adjust(model, type(adjustments)(adjustments.factors))
    with torch.no_grad():
        found: Any = model(**{name: torch.from_numpy(values) for name, values in batch.items()})
    logits = found.logits if "logits" in found else torch.stack([found.start_logits, found.end_logits], -1)
    assert np.abs(real_tokens(logits.numpy(), batch) - exact).max() < 1e-4


def test_attention_by_relative_position_is_refused(tmp_path: Path) -> None:
    folder = make_family_checkpoint(tmp_path / "model", "deberta-v2", 3)
    with pytest.raises(
        BackendError, match="smoothing and bias_correction: a model with attention by relative position"
    ):
        add_ranges(folder, SMOOTH)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"smoothing": 1.0}, "smoothing must be above 0 and below 1, not 1.0; 0.5 is usual"),
        ({"smoothing": "much"}, "smoothing must be a number, not 'much'"),
        ({"bias_correction": 1}, "bias_correction must be true or false, not 1"),
    ],
)
def test_other_values_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        changed_scheme("engine_int8", changes)
    with pytest.raises(BackendError, match="needs a base that quantizes linear layers only"):
        changed_scheme("aimet_w8a8", {"smoothing": 0.5})
    assert get_scheme(BOTH).smoothing == 0.5
