"""Model families on every backend, compared with plain transformers, and a family that is only registered here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

import backends
from backends import BackendError, Settings, get_backend
from backends.checkpoint import canonical_names, read_architecture
from backends.encoder_graph import relative_bucket
from backends.fake_quant.calibrate import calibrate_model
from backends.fake_quant.simulate import install, names_of, parameter_of
from backends.fake_quant.training import trained_quantizer
from backends.families import FAMILIES, family_names, get_family
from backends.schemes import get_scheme
from backends.tensor_names import source
from backends.torch_models import auto_class, load_model
from tests.backends.checkpoints import LENGTH, add_ranges, make_batch
from tests.backends.family_checkpoints import make_family_checkpoint
from tests.backends.running import run_real_tokens, run_unfused

Array = np.ndarray[Any, Any]
SHIPPED = [name for name in family_names() if name != "bert"]
ALIKE = ("camembert", "xlm-roberta")
"""These differ from RoBERTa in names only."""
MODELS = [
    pytest.param(
        (family, labels),
        id=f"{family}-{'classification' if labels else 'question_answering'}",
        marks=[pytest.mark.slow] if family in ALIKE and not labels else [],
    )
    for family in [*SHIPPED, "bare"]
    for labels in (None, 3)
    if (family, labels) != ("bare", None)
]


def slow(*schemes: str) -> list[Any]:
    return [pytest.param(scheme, marks=pytest.mark.slow) for scheme in schemes]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES.ours, "bare", "tests.backends.other_families:BARE")


@pytest.fixture(scope="module", params=MODELS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family_checkpoint(tmp_path_factory.mktemp("model"), *request.param)


def reference(folder: Path, **how: Any) -> tuple[Any, bool]:
    """transformers' own model of a folder, and whether it answers questions."""
    answers = read_architecture(folder).head == "question_answering"
    model: Any = auto_class("question_answering" if answers else "classification").from_pretrained(folder, **how)
    return model.train(False), answers


def exact(folder: Path, batch: dict[str, Array]) -> Array:
    """Logits by transformers in double precision: each sequence alone, without padding, with token types only where the model has
    several."""
    model, answers = reference(folder)
    model.double()
    types = getattr(model.config, "type_vocab_size", 0) > 1
    rows = []
    for ids, mask, kinds in zip(*(batch[name] for name in backends.base.INPUTS), strict=True):
        length = int(mask.sum())
        inputs = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": kinds} if types else {})
        with torch.no_grad():
            outputs = model(**{name: torch.from_numpy(values[None, :length]) for name, values in inputs.items()})
        both = torch.stack((outputs.start_logits, outputs.end_logits), -1) if answers else outputs.logits[:, None]
        rows.append(both[0].numpy())
    return np.concatenate(rows)


def test_logits_are_those_of_transformers(checkpoint: Path, tmp_path: Path) -> None:
    batch = make_batch(1)
    expected = exact(checkpoint, batch)
    assert expected.std() > 0.01
    for name in ("torch_fp32", "onnxruntime_fp32"):
        assert np.abs(run_real_tokens(name, checkpoint, batch, tmp_path) - expected).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("family", SHIPPED)
def test_logits_of_default_sizes_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    folder = make_family_checkpoint(tmp_path / "model", family, 3, default_sizes=True)
    batch = make_batch(1, rows=2)
    assert np.abs(run_real_tokens("onnxruntime_fp32", folder, batch, tmp_path) - exact(folder, batch)).max() < 1e-4


def test_macs_are_what_pytorch_counts(checkpoint: Path) -> None:
    model, _ = reference(checkpoint, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.full((1, LENGTH), 7))
    architecture = read_architecture(checkpoint)
    folded = 0  # what DeBERTa's layers make of its positions: the same for every text, so that graphs hold it
    if how := architecture.disentangled:
        folded = 2 * architecture.layers * len(how.parts) * 32 * 64 * 64
    assert 2 * architecture.total_macs(LENGTH) + folded == counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["engine_int8", *slow("q8bert", "aimet_w8a8")])
def test_calibrated_int8_equals_its_simulation(checkpoint: Path, tmp_path: Path, scheme: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    add_ranges(folder, scheme)
    batch, total = make_batch(2, rows=8), read_architecture(folder).total_macs(LENGTH)
    simulated = run_real_tokens("fake_quant_w8a8", folder, batch, tmp_path)
    moved = np.abs(simulated - run_real_tokens("torch_fp32", folder, batch, tmp_path))
    assert np.median(moved) > 1e-4
    if scheme == "aimet_w8a8":  # ONNX Runtime's integer softmax is not the graph's
        assert (
            np.median(np.abs(run_unfused(folder, batch, tmp_path / "model.onnx", quantize="u8") - simulated))
            < np.median(moved) / 100
        )
        return
    # Float32 puts single values on the other side of a tie, which changes the mean, not the median.
    assert (
        np.median(np.abs(run_real_tokens("onnxruntime_int8", folder, batch, tmp_path) - simulated))
        < np.median(moved) / 100
    )
    placement = get_backend("onnxruntime_int8").prepare(folder, Settings(LENGTH, 8, 1, tmp_path), "cpu").placement()
    assert placement.total_macs == total
    if read_architecture(folder).pooler == "relu":
        total -= 64 * 64  # ONNX Runtime merges a ReLU with the Q after it and leaves the product before it in float
    widths = 3 if read_architecture(folder).layout == "modernbert" else 2  # the gate
    relative = 2 * 2 * LENGTH * 32 * 64 if read_architecture(folder).disentangled else 0
    attention, linear = 2 * 2 * LENGTH * LENGTH * 64 + relative, 2 * LENGTH * (4 * 64 * 64 + widths * 64 * 128)
    assert placement.int8_macs == (linear if scheme == "engine_int8" else total - attention)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["engine_int8", *slow("vitis_pof2")])
def test_training_quantizers_are_installed_and_removed(checkpoint: Path, scheme: str) -> None:
    model, chosen = load_model(checkpoint, read_architecture(checkpoint)), get_scheme(scheme)
    before = list(model.state_dict())
    first, _ = calibrate_model(model, [make_batch(seed) for seed in (100, 101)], chosen)
    quantizers = {
        name: trained_quantizer(first[name], parameter_of(model, name))
        for name in names_of(model, chosen)
        if source(name) == name
    }
    take_out = install(model, chosen, quantizers)
    called = set[str]()
    for name, quantizer in quantizers.items():
        quantizer.register_forward_hook(lambda *_, name=name: called.add(name))
    model(**{name: torch.from_numpy(values) for name, values in make_batch(3).items()})
    assert called == set(quantizers)
    take_out()
    assert list(model.state_dict()) == before


def test_names_map_both_ways(checkpoint: Path) -> None:
    architecture = read_architecture(checkpoint)
    family = get_family(load_model(checkpoint, architecture).config.model_type)  # type: ignore[union-attr, arg-type]
    stored = set(load_file(checkpoint / "model.safetensors"))
    assert {family.path(name) for name in architecture.tensors()} == stored
    assert set(canonical_names(stored, family, architecture.head)) == set(architecture.tensors())
    alone = {name.removeprefix(f"{family.prefix}.") for name in stored if name.startswith(family.prefix)}
    assert {family.canonical(name) for name in alone} < set(architecture.tensors())


def test_positions_of_roberta_start_after_the_padding(tmp_path: Path) -> None:
    folder = make_family_checkpoint(tmp_path / "model", "roberta", None)
    architecture = read_architecture(folder)
    assert (architecture.first_position, architecture.positions) == (2, 126)
    with pytest.raises(BackendError, match="max_length 127 is more than the model's 126 positions"):
        get_backend("onnxruntime_fp32").prepare(folder, Settings(127, 8, 1, tmp_path), "cpu")


def test_relative_positions_of_mpnet_are_those_of_transformers() -> None:
    distances = np.arange(-700, 701)
    expected = MPNetEncoder.relative_position_bucket(torch.from_numpy(distances)).numpy()  # type: ignore[no-untyped-call]
    assert np.array_equal(relative_bucket(distances), expected)


def test_bert_of_tensorflow_and_of_an_encoder_alone() -> None:
    bert = get_family("bert")
    assert bert.canonical("bert.encoder.layer.11.output.LayerNorm.gamma") == "encoder.layer.11.output.LayerNorm.weight"
    assert bert.canonical("encoder.layer.1.output.dense.bias") == "encoder.layer.1.output.dense.bias"
    assert bert.canonical("cls.predictions.bias") is None
    assert bert.path("encoder.layer.3.intermediate.dense.weight") == "bert.encoder.layer.3.intermediate.dense.weight"
    assert bert.path("classifier.bias") == "classifier.bias"


def test_an_unknown_family_is_one_line_that_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    with pytest.raises(
        BackendError, match=r"config.json: model_type is 'albert', which is no known family .* \(bert, "
    ):
        read_architecture(tmp_path)
    with pytest.raises(BackendError, match=r"^unknown model family 'berta'; did you mean 'bert'\?$"):
        get_family("berta")


def test_a_family_of_an_installed_package(tmp_path: Path) -> None:
    """By its entry point, in a process of its own: exported and run on ONNX Runtime."""
    package = tmp_path / "site" / "other-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[quantboard.families]\nbare = tests.backends.other_families:BARE\n")
    folder = make_family_checkpoint(tmp_path / "model", "bare", 3)
    code = (
        "from pathlib import Path; import numpy as np; from backends import Settings, get_backend; from backends.base import INPUTS\n"
        f"session = get_backend('onnxruntime_fp32').prepare(Path({str(folder)!r}), Settings(48, 8, 1, Path({str(tmp_path)!r})), 'cpu')\n"
        "print(*session.run({name: np.ones((4, 9), np.int64) for name in INPUTS}).shape)"
    )
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(backends.__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout == "4 3\n"


def test_only_its_own_file_names_bert() -> None:
    """All other code uses canonical names, not BERT's classes and not the name of its encoder."""
    root = Path(backends.__file__).parent.parent
    files = [file for wing in ("backends", "harness") for file in sorted((root / wing).rglob("*.py"))]
    names = re.compile(r'\bBert(For|Model\b|Config\b)|"bert\.|\bbert\.encoder')  # not DistilBert's
    naming = [str(file.relative_to(root)) for file in files if names.search(file.read_text(encoding="utf-8"))]
    assert naming == ["backends/families/bert.py"]
