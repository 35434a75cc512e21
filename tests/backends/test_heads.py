"""Classes of tokens, and one vector a text, on every backend: logits and vectors of plain transformers, whatever the family."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import backends
from backends import BackendError, Settings, get_backend
from backends.checkpoint import read_architecture
from backends.pooling import FILES, pool, read_pooling, write_pooling
from backends.torch_models import auto_class, part_of
from tests.backends.checkpoints import LENGTH, add_ranges, make_batch, make_checkpoint
from tests.backends.family_checkpoints import make_family_checkpoint
from tests.backends.running import run_real_tokens, run_unfused

Array = np.ndarray[Any, Any]
FAMILIES = ("bert", "distilbert", "roberta", "electra", "mpnet", "modernbert", "deberta-v2")
HEADS = ("token_classification", "mean", "cls")


@pytest.fixture(
    scope="module",
    params=[(family, head) for family in FAMILIES for head in HEADS],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, head = request.param
    folder = tmp_path_factory.mktemp("model")
    if head == "token_classification":
        return make_family_checkpoint(folder, family, 5, part=head)
    make_family_checkpoint(folder, family, None, part="encoder")
    write_pooling(folder, head, 64)
    return folder


def exact(folder: Path, batch: dict[str, Array]) -> Array:
    """By transformers in double precision, each sequence alone and without padding: logits of all tokens, or one vector a
    sequence."""
    architecture = read_architecture(folder)
    model: Any = auto_class(part_of(architecture.head)).from_pretrained(folder).train(False).double()
    types = getattr(model.config, "type_vocab_size", 0) > 1
    rows = []
    for ids, mask, kinds in zip(*(batch[name] for name in backends.base.INPUTS), strict=True):
        length = int(mask.sum())
        inputs = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": kinds} if types else {})
        with torch.no_grad():
            outputs = model(**{name: torch.from_numpy(values[None, :length]) for name, values in inputs.items()})
        if architecture.head == "token_classification":
            rows.append(outputs.logits[0].numpy())
        else:
            states = outputs.last_hidden_state[0].numpy()
            rows.append(states[:1] if architecture.pooling == "cls" else states.mean(0, keepdims=True))
    return np.concatenate(rows)


def test_outputs_are_those_of_transformers(checkpoint: Path, tmp_path: Path) -> None:
    batch = make_batch(1)
    expected = exact(checkpoint, batch)
    assert expected.std() > 0.01
    for name in ("torch_fp32", "onnxruntime_fp32"):
        assert np.abs(run_real_tokens(name, checkpoint, batch, tmp_path) - expected).max() < 1e-4


def test_macs_are_what_pytorch_counts(checkpoint: Path) -> None:
    architecture = read_architecture(checkpoint)
    model: Any = auto_class(part_of(architecture.head)).from_pretrained(checkpoint, attn_implementation="eager")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.full((1, LENGTH), 7))
    folded = 2 * 2 * 2 * 32 * 64 * 64 if architecture.disentangled else 0  # the same for every text
    assert 2 * architecture.total_macs(LENGTH) + folded == counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["engine_int8", "q8bert", "aimet_w8a8"])
def test_calibrated_int8_equals_its_simulation(checkpoint: Path, tmp_path: Path, scheme: str) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    add_ranges(folder, scheme)
    batch = make_batch(2, rows=8)
    simulated = run_real_tokens("fake_quant_w8a8", folder, batch, tmp_path)
    moved = np.median(np.abs(simulated - run_real_tokens("torch_fp32", folder, batch, tmp_path)))
    assert moved > 1e-4
    if scheme == "aimet_w8a8":  # ONNX Runtime's integer softmax is not the graph's
        engine = run_unfused(folder, batch, tmp_path / "model.onnx", quantize="u8")
    else:
        engine = run_real_tokens("onnxruntime_int8", folder, batch, tmp_path)
        placement = get_backend("onnxruntime_int8").prepare(folder, Settings(LENGTH, 8, 1, tmp_path), "cpu").placement()
        assert placement.total_macs == read_architecture(folder).total_macs(LENGTH)
        assert placement.int8_macs > placement.total_macs / 2
    assert np.median(np.abs(engine - simulated)) < moved / 100


def test_a_pooling_is_read_in_the_forms_that_sentence_transformers_wrote(tmp_path: Path) -> None:
    assert read_pooling(tmp_path) is None
    write_pooling(tmp_path, "cls", 8)
    assert read_pooling(tmp_path) == "cls"
    config = tmp_path / FILES[1]
    config.write_text('{"embedding_dimension": 8, "pooling_mode": "mean", "include_prompt": true}')
    assert read_pooling(tmp_path) == "mean"
    for text, word in [
        ('{"pooling_mode": "max"}', "pooling max is not supported"),
        ('{"pooling_mode": ["mean", "cls"]}', "mean with cls"),
        ('{"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true}', "max_tokens with mean_tokens"),
        ("[", "cannot be read"),
    ]:
        config.write_text(text)
        with pytest.raises(BackendError, match=word) as fault:
            read_pooling(tmp_path)
        assert str(config) in str(fault.value) and "\n" not in str(fault.value)
    modules = json.loads((tmp_path / FILES[0]).read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (tmp_path / FILES[0]).write_text(json.dumps(modules))
    with pytest.raises(BackendError, match="module 'Dense' is not supported"):
        read_pooling(tmp_path)


def test_an_encoder_alone_is_a_sentence_encoder_only_where_its_folder_says_so(tmp_path: Path) -> None:
    folder = make_family_checkpoint(tmp_path, "bert", None, part="encoder")
    with pytest.raises(BackendError, match="no head"):
        read_architecture(folder)
    assert read_architecture(folder, "cls").pooling == "cls"
    write_pooling(folder, "mean", 64)
    architecture = read_architecture(folder)
    assert (architecture.head, architecture.pooling, architecture.labels) == ("embedding", "mean", 64)
    answers = make_checkpoint(tmp_path / "answers")
    write_pooling(answers, "mean", 64)
    assert read_architecture(answers).head == "question_answering", "it names its class"


def test_the_mean_leaves_padding_out() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])
    assert pool(states, torch.tensor([[1, 1, 0]]), "mean").tolist() == [[2.0, 4.0]]
    assert pool(states, torch.tensor([[1, 1, 0]]), "cls").tolist() == [[1.0, 2.0]]
