"""The program beside an exported model gives the answers that the engine gave, with onnxruntime, tokenizers and numpy alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import Settings, get_backend
from harness.checkpoints.export import export
from harness.checkpoints.labels import label_names
from harness.checkpoints.make import ensure
from harness.checkpoints.program import write_program
from tasks import DataRef, Features, Shape, open_task
from tasks.tokens import load_tokenizer
from tests.run.small import ptq, sample_spec, train

RUN = (
    "import json, sys; sys.path.insert(0, sys.argv[1]); import predict;"
    "print(json.dumps([[predict.predict([tuple(row) if len(row) > 1 else row[0]])[0] for row in json.load(sys.stdin)],"
    " sorted(sys.modules)]))"
)


def answers(folder: Path, texts: list[list[str]]) -> list[Any]:
    """What the program says of each text alone, run without this project."""
    command = [sys.executable, "-I", "-c", RUN, str(folder)]
    ended = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    said, modules = json.loads(ended.stdout)
    assert not {"torch", "transformers", "onnx", "harness", "backends", "tasks"} & set(modules)
    return list(said)


def batch_of(features: Features, row: int) -> dict[str, Any]:
    length = int(features.lengths[row])
    ids, types = (
        array[row : row + 1, :length].astype("int64") for array in (features.input_ids, features.token_type_ids)
    )
    return {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": types}


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("glue/sst2", ["sentence"]),
        ("glue/mrpc", ["sentence1", "sentence2"]),
        pytest.param("glue/stsb", ["sentence1", "sentence2"], marks=pytest.mark.slow),
    ],
)
def test_the_program_answers_as_the_engine_did(tmp_path: Path, name: str, columns: list[str]) -> None:
    checkpoint = ensure(ptq(sample_spec(task=name, train=train(max_steps=8))), tmp_path / "cache")
    export(checkpoint, None, "tiny", "onnx", tmp_path / "out")
    write_program(checkpoint, tmp_path / "out", 24, integer=True)
    backend = get_backend("onnxruntime_int8")
    session = backend.prepare(checkpoint, Settings(24, 1, 1, tmp_path / "cache"), "cpu")
    task = open_task(name, DataRef("sample"))
    rows = task.examples(task.eval_splits[0])[:40]
    features = task.features(rows, load_tokenizer(checkpoint), Shape(24))
    said = answers(tmp_path / "out", [[row[column] for column in columns] for row in rows])
    logits = np.concatenate([session.run(batch_of(features, number)) for number in range(len(rows))])
    expected = task.decode(rows, features, logits, label_names(checkpoint, task))
    assert said == ([pytest.approx(value, abs=1e-5) for value in expected] if name == "glue/stsb" else expected)
    alone = subprocess.run([sys.executable, tmp_path / "out" / "predict.py"], capture_output=True, text=True)
    assert (alone.returncode, alone.stderr.count("\n")) == (1, 1)
    assert 'python predict.py "a text"' in alone.stderr
