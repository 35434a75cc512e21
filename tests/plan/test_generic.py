"""What `plan` says of a model whose family is not known here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AlbertForSequenceClassification,
    BigBirdForSequenceClassification,
    LongformerForSequenceClassification,
    XmodForSequenceClassification,
)

from harness.cli.main import main
from tests.run.own_tasks import save_model

SUITE = """
title = "Generic"
tasks = ["topics"]
baseline = "torch_fp32"
shape = {{ max_length = 32, batch_sizes = [8] }}
backends = [
  {{ name = "torch_fp32" }}, {{ name = "torch_compiled_fp32" }}, {{ name = "onnxruntime_fp32" }},
  {{ name = "onnxruntime_int8", scheme = "engine_int8" }}, {{ name = "onnxruntime_int8_dynamic" }},
  {{ name = "openvino_fp32" }}, {{ name = "fake_quant_w8a8", scheme = "engine_int8" }},
]
[models]
mine = {{ source = "model", {recipe} }}
[task.topics]
kind = "classification"
text = "message"
label = "topic"
labels = ["a", "b"]
data = {{ train = "rows.jsonl", validation = "rows.jsonl" }}
"""
ABLE = {"torch_fp32", "onnxruntime_fp32", "onnxruntime_int8_dynamic", "openvino_fp32"}


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The blocked cells of a plan of a model, ALBERT by default, with a recipe: (reason, remedy), or None, by backend."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    rows = [{"message": f"text {number}", "topic": "ab"[number % 2]} for number in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def plan(
        recipe: str = 'recipe = "load"', model: Any = AlbertForSequenceClassification, **sizes: Any
    ) -> dict[str, Any]:
        save_model(tmp_path / "model", model, ["a", "b"], **{"max_position_embeddings": 66, **sizes})
        (tmp_path / "suite.toml").write_text(SUITE.format(recipe=recipe))
        capsys.readouterr()
        assert main(["plan", "suite.toml", "--json"]) == 0
        return {cell["backend"]: cell["blocked"] for cell in json.loads(capsys.readouterr().out)["cells"]}

    return plan


def test_backends_that_need_a_known_family_are_refused(planned: Any) -> None:
    blocked = planned()
    assert {name for name, why in blocked.items() if not why} == ABLE
    reason, remedy = blocked["onnxruntime_int8"]
    assert reason == "mine: 'onnxruntime_int8' runs known model families only, and 'albert' is none"
    assert all(name in remedy for name in ABLE)
    assert "onnxruntime_file" not in remedy


def test_a_model_of_which_no_graph_can_be_made_runs_as_transformers_has_it(planned: Any) -> None:
    blocked = planned(model=LongformerForSequenceClassification, attention_window=8)
    assert blocked["torch_fp32"] is None
    for name in ABLE - {"torch_fp32"}:
        reason, remedy = blocked[name]
        assert reason.startswith("mine: PyTorch's exporter makes no graph of 'longformer': ")
        assert remedy == "take torch_fp32, which runs it as transformers has it"


def test_sparse_attention_that_a_short_text_ends_is_refused(planned: Any) -> None:
    """Up to (5 + 2 x 1) blocks, here 28 and 56 tokens, transformers' BigBird computes full attention, and stays with it."""
    sizes = {"model": BigBirdForSequenceClassification, "num_random_blocks": 1}
    for reason, remedy in planned(**sizes, block_size=4).values():
        assert "'big_bird' has sparse attention above 28 tokens" in reason
        assert remedy == "lower shape.max_length to 28"
    assert {name for name, why in planned(**sizes, block_size=8).items() if not why} == ABLE


def test_a_model_that_is_not_told_its_language_is_refused(planned: Any) -> None:
    for reason, remedy in planned(model=XmodForSequenceClassification).values():
        assert "does not fit topics: config.json has no default_language" in reason
        assert '"default_language": "en_XX"' in remedy
    assert planned(model=XmodForSequenceClassification, default_language="en_XX")["torch_fp32"] is None


def test_training_needs_a_known_family(planned: Any) -> None:
    for reason, remedy in planned('recipe = "finetune", train = { learning_rate = 1e-4, epochs = 1 }').values():
        assert "'albert' is no model family that is trained here" in reason
        assert remedy == "fine-tune it with transformers and load the result"
