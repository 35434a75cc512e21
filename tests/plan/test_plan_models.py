"""Plans of models that are made from others: the checkpoints of QAT models and students, and what their keys depend on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import BertForMaskedLM, BertModel, ModernBertModel, MPNetModel

from harness.plan.spec import Cell
from tasks import DataRef
from tasks.sample import SAMPLE_VERSION
from tests.machine.machines import GPU_MACHINE
from tests.plan.test_plan import FROM_HUB, REAL, SAMPLE, Make, find_cell, make
from tests.run.own_tasks import save_model
from tests.run.small import edit
from tests.suite.test_suite_models import MADE

__all__ = ["make"]  # the fixture

MADE_FROM_OTHERS = ("[shape]\n", MADE)


@pytest.fixture
def with_text(tmp_path: Path) -> dict[str, DataRef]:
    for name in (
        "corpus/a.txt",
        "glue/CoLA/train.tsv",
        "glue/CoLA/dev.tsv",
        "squad/train-v1.1.json",
        "squad/dev-v1.1.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("A text.\n")
    return {name: DataRef("raw", str(tmp_path)) for name in REAL}


def test_keys_from_before_qat_and_distillation_are_kept(make: Make) -> None:
    """Trainings of hours depend on them: a change must be intended, and then raises a recipe's version."""
    plan = make(MADE_FROM_OTHERS)
    keys = [find_cell(plan, model).checkpoint.key for model in ("base", "tiny", "again")]
    assert keys == ["5c4b47611b8d4fe8", "54b34e5774948ed5", "d3fae1e54fdddb7c"]
    assert find_cell(plan, "tiny", index=1).checkpoint.key == "8f94e4131efa28d8"


def test_a_qat_model_has_its_own_ranges(make: Make) -> None:
    plan = make(MADE_FROM_OTHERS)
    fp32, static, tensorrt = (find_cell(plan, "small", seed=2, index=index) for index in range(3))
    spec = static.checkpoint
    assert (spec.recipe, spec.scheme, spec.source, spec.seed) == ("qat", "engine_int8", "model:tiny", 2)
    assert spec.calibration == {"samples": 128, "batch_size": 16}
    assert spec.parent == find_cell(plan, "tiny", seed=2).checkpoint
    assert fp32.checkpoint == spec == tensorrt.checkpoint
    assert (static.scheme, static.ancestor, fp32.ancestor, fp32.scheme) == ("engine_int8", "tiny", "tiny", None)
    # two entries of onnxruntime_int8 differ by a scheme that does not count here
    assert [cell.label for cell in plan.cells if (cell.model, cell.seed, cell.task) == ("small", 2, "squad_v1")] == [
        "torch_fp32",
        "onnxruntime_int8",
        "TensorRT INT8",
    ]
    other = make((MADE_FROM_OTHERS[0], MADE.replace("engine_int8", "q8bert")))
    assert find_cell(other, "small", seed=2).checkpoint.key != spec.key


def test_an_engine_that_cannot_compute_a_trained_scheme_is_blocked(make: Make) -> None:
    scheme = MADE.replace('scheme = "engine_int8"', 'scheme = "vitis_pof2"')
    plan = make((MADE_FROM_OTHERS[0], scheme), FROM_HUB, machine=GPU_MACHINE)
    assert find_cell(plan, "small").blocked is None
    blocked = find_cell(plan, "small", index=1).blocked
    assert blocked is not None
    assert blocked[0].startswith(
        "small: 'onnxruntime_int8' cannot run 'vitis_pof2', which can only be simulated (it rounds ties up"
    )


def test_a_scheme_that_computes_padding_pads_its_cells_alone(make: Make) -> None:
    plan = make((MADE_FROM_OTHERS[0], MADE.replace('scheme = "engine_int8"', 'scheme = "aimet_w8a8"')))
    assert find_cell(plan, "small", index=1).padding == "max_length"
    assert find_cell(plan, "small", index=1).pads
    assert not find_cell(plan, "small").pads
    assert find_cell(plan, "small").padding == "longest"


def test_a_student_is_a_chain_of_stages(make: Make, with_text: dict[str, DataRef]) -> None:
    plan = make(MADE_FROM_OTHERS, FROM_HUB, data=with_text)
    cell = find_cell(plan, "student", "glue/cola", seed=2)
    assert (cell.blocked, cell.ancestor) == (None, "tiny")
    prediction = cell.checkpoint
    intermediate = prediction.parent
    assert intermediate is not None
    general = intermediate.parent
    assert general is not None
    assert general.parent is None
    chain = (general, intermediate, prediction)
    assert [(spec.recipe, (spec.distill or {})["stage"]) for spec in chain] == [
        ("distill", "general"),
        ("distill", "intermediate"),
        ("distill", "prediction"),
    ]
    # the text knows no task: one general stage for all tasks and seeds
    assert (general.task, general.seed, general.shape.max_length) == ("corpus", 1, 384)
    assert general.key == find_cell(plan, "student", "squad_v1", seed=1).checkpoint.parent.parent.key  # type: ignore[union-attr]
    assert set(general.identity or {}) == {"corpus"}
    assert general.masked_lm is None
    assert intermediate.teacher == prediction.teacher == find_cell(plan, "tiny", "glue/cola", seed=2).checkpoint
    assert (intermediate.shape.max_length, intermediate.seed) == (384, 2)
    assert [(spec.train or {})["epochs"] for spec in chain] == [3, 50, 3]
    assert [(spec.train or {})["learning_rate"] for spec in chain] == [5e-5, 5e-5, 3e-5]
    assert (general.architecture or {})["num_hidden_layers"] == 1
    assert intermediate.architecture is prediction.architecture is None
    words = prediction.masked_lm
    assert words is not None
    assert (words.recipe, words.source, words.task) == ("pretrained", "hub:owner/words", "corpus")
    assert (prediction.distill or {})["temperature"] == 2.0
    assert (prediction.distill or {})["augment"] == {"copies": 20, "probability": 0.4, "candidates": 15}
    assert prediction.needs == (intermediate, prediction.teacher, words)
    assert len({spec.key for spec in (*chain, words)}) == 4
    question = find_cell(plan, "student", "squad_v1").checkpoint
    assert question.masked_lm is None
    assert "augment" not in (question.distill or {})


def test_a_task_may_have_its_own_number_of_new_examples(make: Make) -> None:
    table = "[models.student.distill.prediction]"
    own = MADE.replace(table, f'[models.student.task."glue/cola".augment]\ncopies = 30\n{table}')
    assert own != MADE
    spec = find_cell(make((MADE_FROM_OTHERS[0], own), FROM_HUB), "student", "glue/cola").checkpoint
    assert (spec.distill or {})["augment"] == {"copies": 30, "probability": 0.4, "candidates": 15}


def test_the_general_stage_is_the_same_whatever_a_task_changes(make: Make, with_text: dict[str, DataRef]) -> None:
    table = "[models.student.distill.general]"
    own = MADE.replace(table, f'[models.student.task."glue/cola".train]\nepochs = 50\n{table}')
    plan = make((MADE_FROM_OTHERS[0], own), FROM_HUB, data=with_text)
    general = []
    for task in ("glue/cola", "squad_v1"):
        prediction = find_cell(plan, "student", task).checkpoint
        assert prediction.parent is not None and prediction.parent.parent is not None
        assert (prediction.train or {})["epochs"] == (50 if task == "glue/cola" else 3)
        general.append(prediction.parent.parent.key)
    assert general[0] == general[1]


CHANGES: dict[str, tuple[tuple[str, str], tuple[bool, bool, bool]]] = {
    "nothing": (("", ""), (False, False, False)),
    "the last stage's rate": (("learning_rate = 3e-5", "learning_rate = 2e-5"), (False, False, True)),
    "what stages share": (("5e-5\nepochs = 3", "5e-5\nepochs = 4"), (True, True, True)),
    "temperature": (("temperature = 2.0", "temperature = 3.0"), (False, False, True)),
    "the teacher's training": (("epochs = 10", "epochs = 11"), (False, True, True)),
    "words": (("hub:owner/words", "hub:owner/others"), (False, True, True)),
    "candidates": (('hub:owner/words"', 'hub:owner/words"\ncandidates = 5'), (False, True, True)),
    "size": (("hidden_size = 64", "hidden_size = 32"), (True, True, True)),
    "devices": (("learning_rate = 3e-5", "learning_rate = 3e-5\ndevices = 2"), (False, False, False)),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_stages_key_changes_with_it_and_with_what_it_is_made_from(
    make: Make, with_text: dict[str, DataRef], change: str
) -> None:
    keys = []
    for changes in ([], [CHANGES[change][0]]):
        prediction = find_cell(
            make(MADE_FROM_OTHERS, FROM_HUB, *changes, data=with_text), "student", "glue/cola"
        ).checkpoint
        assert prediction.parent is not None
        general = prediction.parent.parent
        assert general is not None
        assert general.teacher is not None
        assert (general.teacher.recipe, general.teacher.source) == ("pretrained", "hub:owner/bert")
        keys.append([general.key, prediction.parent.key, prediction.key])
    assert tuple(before != after for before, after in zip(*keys, strict=True)) == CHANGES[change][1]


def test_a_student_without_text_is_blocked(make: Make) -> None:
    assert find_cell(make(MADE_FROM_OTHERS, FROM_HUB), "student", "glue/cola").blocked == (
        "there is no text corpus on the hub",
        "save the tasks with `quantboard data SUITE DIR`, put plain text (*.txt, a blank line between documents) into"
        " DIR/corpus and give --data DIR",
    )
    without = (MADE_FROM_OTHERS[0], MADE.replace("[models.student.distill.general]\n", ""))
    assert find_cell(make(without, FROM_HUB), "student", "glue/cola").blocked is None
    vectors = ('hub:owner/words"', 'hub:owner/words"\nglove = "glove.txt"')
    assert find_cell(make(without, FROM_HUB, vectors), "student", "glue/cola").blocked == (
        "glove.txt: no such file",
        "download GloVe vectors, or delete key glove",
    )


@pytest.mark.slow
def test_a_teacher_with_layers_that_do_not_fit_is_reported_before_it_is_trained(make: Make, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "max_position_embeddings": 512}
    save_model(tmp_path / "bert", BertModel, num_hidden_layers=5, num_attention_heads=4, **sizes)
    save_model(tmp_path / "deep", BertModel, num_hidden_layers=6, num_attention_heads=4, **sizes)
    student = MADE.replace('source = "scratch"', 'source = "bert"').replace("architecture = {", "#")
    student = student.replace("temperature = 2.0", "layers = 2").replace("[models.student.distill.general]\n", "")
    deeper = student.replace('source = "bert"', 'source = "deep"')
    teacher = (FROM_HUB[0], FROM_HUB[1].replace("hub:owner/bert", "bert"))

    def blocked(student: str) -> tuple[str, str] | None:
        return find_cell(make((MADE_FROM_OTHERS[0], student), teacher), "student", "glue/cola").blocked

    assert blocked(student) == (
        "student: its 2 layers do not divide its source's 5 evenly, so layers have no uniform mapping",
        "give the student 1 or 5 layers",
    )
    assert blocked(deeper) == (
        "student: its 2 layers do not divide the teacher's 5 evenly, so layers have no uniform mapping",
        "give the student 1 or 5 layers",
    )
    assert blocked(deeper.replace("layers = 2", "layers = 1")) is None
    edit(tmp_path / "bert", num_attention_heads=2)
    assert blocked(deeper.replace("layers = 2", "layers = 1")) == (
        "student: it has 4 attention heads and its teacher 2, but scores are compared head by head",
        "give the student 2 heads",
    )
    assert (
        find_cell(
            make((MADE_FROM_OTHERS[0], student.replace("layers = 2", "")), teacher), "student", "glue/cola"
        ).blocked
        is None
    )


@pytest.mark.slow
def test_a_teacher_that_cannot_teach_is_reported_before_it_is_trained(make: Make, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "max_position_embeddings": 512}
    teacher = (FROM_HUB[0], FROM_HUB[1].replace("hub:owner/bert", "bert"))
    without_text = MADE.replace("[models.student.distill.general]\n", "")
    of_answers = without_text.replace("[models.student.distill.intermediate]\nepochs = 20\n", "")
    of_answers = of_answers.replace('[models.student.task."glue/cola".distill.intermediate]\nepochs = 50\n', "")

    def blocked(student: str) -> tuple[str, str] | None:
        return find_cell(make((MADE_FROM_OTHERS[0], student), teacher), "student", "glue/cola").blocked

    save_model(tmp_path / "bert", MPNetModel, **sizes)
    assert blocked(without_text) == (
        "student: tiny: mpnet computes attention in its own modules, where its scores cannot be learnt from",
        "use stages 'prediction' and 'labels'",
    )
    assert blocked(of_answers) is None
    save_model(tmp_path / "bert", ModernBertModel, **sizes, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0)
    kinds = "modernbert has layers of several kinds, so that none can stand for another"
    assert blocked(without_text) == (f"student: tiny: {kinds}", "use stages 'prediction' and 'labels'")
    assert blocked(of_answers) is None
    save_model(tmp_path / "words", BertModel, **sizes)
    words = of_answers.replace("hub:owner/words", "words")
    assert blocked(words) == (
        "augment.masked_lm: it has no head that predicts masked tokens",
        "name a masked language model, or give augment.train",
    )
    save_model(tmp_path / "words", BertForMaskedLM, **sizes)
    assert blocked(words) is None


def test_on_the_sample_students_are_made_from_stand_ins(make: Make) -> None:
    own = """[sample.models.student]
architecture = { num_hidden_layers = 1, hidden_size = 64, num_attention_heads = 2, intermediate_size = 128 }
train = { batch_size = 32 }
distill = { general = { max_steps = 9 }, augment = { copies = 2, train = { max_steps = 7 } } }
[sample.models.small]
train = { learning_rate = 1e-5 }
[sample.train]"""
    plan = make(MADE_FROM_OTHERS, ("[sample.train]", own), data=SAMPLE, tasks=["squad_v1"], hub=False)
    spec = find_cell(plan, "student", "squad_v1").checkpoint
    assert spec.parent is not None
    general = spec.parent.parent
    assert general is not None
    assert (general.source, general.identity, general.shape.max_length) == (
        "scratch",
        {"corpus": f"sample {SAMPLE_VERSION}"},
        128,
    )
    assert general.teacher == spec.teacher == find_cell(plan, "tiny").checkpoint
    assert (general.architecture or {})["hidden_size"] == 64
    assert [((spec.train or {})["max_steps"], (spec.train or {})["batch_size"]) for spec in (general, spec)] == [
        (9, 32),
        (None, 32),
    ]
    small = find_cell(plan, "small").checkpoint
    assert (small.recipe, small.scheme, (small.train or {})["learning_rate"]) == ("qat", "engine_int8", 1e-5)
    assert small.parent == find_cell(plan, "tiny").checkpoint


def test_a_chain_survives_json(make: Make) -> None:
    for cell in make(MADE_FROM_OTHERS).cells:
        again = Cell.from_json(json.loads(json.dumps(cell.to_json())))
        assert again == cell
        assert again.checkpoint.key == cell.checkpoint.key
