"""Encoders whose family is not known here, which run the generic way, compared with plain transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backends import BackendError, Placement, Settings, get_backend
from backends.base import INPUTS
from backends.checkpoint import read_architecture, read_encoder
from backends.export import product_macs, write_onnx
from backends.families import Part
from backends.families.generic import NOTE, generic_family, why_no_graph
from backends.torch_models import auto_class, counted_macs, load_model
from backends.traced import _check_answers, counted_products, write_traced
from tests.backends.checkpoints import LENGTH, make_batch, make_checkpoint
from tests.backends.generic_checkpoints import make_generic_checkpoint
from tests.backends.running import real_tokens

Array = np.ndarray[Any, Any]
Batch = dict[str, Array]
FP32 = ("torch_fp32", "onnxruntime_fp32", "openvino_fp32")
DYNAMIC = "onnxruntime_int8_dynamic"


def reference(folder: Path, batch: Batch, part: Part, *, types: bool) -> Array:
    """Logits by transformers in double precision: each sequence alone, without padding."""
    model: Any = auto_class(part).from_pretrained(folder).train(False).double()
    rows = []
    for ids, mask, kinds in zip(*(batch[name] for name in INPUTS), strict=True):
        length = int(mask.sum())
        inputs = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": kinds} if types else {})
        with torch.no_grad():
            outputs = model(**{name: torch.from_numpy(values[None, :length]) for name, values in inputs.items()})
        if part == "question_answering":
            rows.append(torch.stack((outputs.start_logits, outputs.end_logits), -1)[0].numpy())
        else:
            rows.append(outputs.logits[0].numpy() if part == "token_classification" else outputs.logits.numpy())
    return np.concatenate(rows)


def run(name: str, folder: Path, cache: Path, *batches: Batch) -> tuple[list[Array], Placement]:
    """The logits of the real tokens of each batch."""
    session = get_backend(name).prepare(folder, Settings(LENGTH, 8, 1, cache), "cpu")
    try:
        return [real_tokens(session.run(batch), batch) for batch in batches], session.placement()
    finally:
        session.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("albert", "classification"),
        ("deberta", "classification"),
        ("nomic_bert", "classification"),
        ("roberta-prelayernorm", "token_classification"),
        ("roformer", "question_answering"),
    ],
)
def test_logits_and_products_are_those_of_transformers(model: str, part: Part, tmp_path: Path) -> None:
    """With padding, pairs, and other batches than the one that was traced."""
    folder = make_generic_checkpoint(tmp_path / "model", model, part)
    types = model in ("albert", "nomic_bert", "roformer")
    batch, other = make_batch(1), make_batch(2, rows=1, length=20)
    expected, others = (reference(folder, each, part, types=types) for each in (batch, other))
    assert expected.std() > 0.01
    placements = {}
    for name in FP32:
        (logits, more), placements[name] = run(name, folder, tmp_path, batch, other)
        assert np.abs(logits - expected).max() < 1e-4
        assert np.abs(more - others).max() < 1e-4
    (logits,), integer = run(DYNAMIC, folder, tmp_path, batch)
    assert 0 < np.abs(logits - expected).max() < 0.2 * np.ptp(expected)
    assert [NOTE in placement.notes for placement in (*placements.values(), integer)] == [True] * 4
    assert {placement.total_macs for placement in placements.values()} == {integer.total_macs}
    assert integer.int8_macs == integer.promised_macs
    assert integer.int8_macs > integer.total_macs / 2


@pytest.mark.slow
def test_products_of_a_known_family_are_counted_alike(tmp_path: Path) -> None:
    """PyTorch's count, ONNX Runtime's profile and the formula are three ways to one number."""
    folder = make_checkpoint(tmp_path / "model", labels=3)
    architecture = read_architecture(folder)
    write_onnx(folder, tmp_path / "model.onnx")
    assert counted_products(tmp_path / "model.onnx", LENGTH) == product_macs(architecture, LENGTH)
    assert counted_macs(load_model(folder, architecture), LENGTH) == architecture.total_macs(LENGTH)


@pytest.mark.slow
def test_what_the_exporter_cannot_take_is_one_line_that_says_why(tmp_path: Path) -> None:
    """Whatever family it is of: a plan knows some of them."""
    folder = make_generic_checkpoint(tmp_path / "model", "longformer")
    with pytest.raises(
        BackendError, match=r"PyTorch's exporter or ONNX Runtime cannot take this model .* run it on torch_fp32"
    ) as raised:
        write_traced(folder, tmp_path / "model.onnx")
    assert "\n" not in str(raised.value) and "Next steps" not in str(raised.value)
    assert not list(tmp_path.glob("*.onnx*"))


def test_a_graph_that_answers_otherwise_than_its_model_is_refused(tmp_path: Path) -> None:
    one, other = (make_checkpoint(tmp_path / name, labels=3) for name in ("one", "other"))
    weights = load_file(other / "model.safetensors")
    weights["classifier.bias"][1] += 0.01
    save_file(weights, other / "model.safetensors")
    write_onnx(one, tmp_path / "model.onnx")

    def answers(folder: Path) -> tuple[Any, Any]:
        model = load_model(folder, read_encoder(folder))
        return lambda **inputs: model(**inputs).logits, model.config

    _check_answers(tmp_path / "model.onnx", *answers(one), 40)
    with pytest.raises(BackendError, match=r"does not answer as the model does .*0\.01\); run it on torch_fp32"):
        _check_answers(tmp_path / "model.onnx", *answers(other), 40)


def test_what_is_known_of_an_encoder_without_an_engine(tmp_path: Path) -> None:
    folder = make_generic_checkpoint(tmp_path / "model", "roberta-prelayernorm", labels=5)
    encoder = read_encoder(folder)
    assert (encoder.positions, encoder.head, encoder.labels) == (128, "classification", 5)
    funnel = generic_family("funnel")
    assert funnel is not None and funnel.class_of("encoder") == "FunnelModel", "the first of two"
    assert why_no_graph("funnel").startswith("PyTorch's exporter makes no graph of 'funnel': ")
    assert generic_family("gpt2") is None, "a decoder"
    assert generic_family("t5") is None, "a decoder behind its encoder"
    assert generic_family("no such") is None


@pytest.mark.parametrize(
    ("config", "fix"),
    [
        ({"model_type": "distil-bert"}, "did you mean 'distilbert'"),
        (
            {"model_type": "my_own", "auto_map": {"AutoModel": "code.Model"}},
            "is never run; name a model of a known family",
        ),
        ({"model_type": ["bert"]}, "model_type is ['bert']; it must be a name"),
    ],
)
def test_an_unknown_type_of_model_is_a_line_that_helps(config: dict[str, Any], fix: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackendError) as raised:
        read_encoder(tmp_path)
    assert fix in str(raised.value)
    assert "\n" not in str(raised.value)
