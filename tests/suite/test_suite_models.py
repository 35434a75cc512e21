"""Suite files with models that are made from others by QAT and distillation, and the line that reports each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.suite.suite_mistakes import GOOD, TRAIN
from tests.suite.test_suite import Problems, load, problems

__all__ = ["problems"]  # the fixture

MADE = """
[models.small]
source = "model:tiny"
recipe = "qat"
scheme = "engine_int8"
train = { learning_rate = 1e-5, epochs = 1 }
[models.student]
source = "scratch"
recipe = "distill"
teacher = "model:tiny"
architecture = { num_hidden_layers = 1, hidden_size = 64, num_attention_heads = 2, intermediate_size = 256 }
[models.student.train]
learning_rate = 5e-5
epochs = 3
[models.student.distill]
temperature = 2.0
[models.student.distill.general]
[models.student.distill.intermediate]
epochs = 20
[models.student.distill.prediction]
learning_rate = 3e-5
[models.student.distill.augment]
masked_lm = "hub:owner/words"
[models.student.task."glue/cola".distill.intermediate]
epochs = 50

[shape]
"""
SUITE = GOOD.replace("[shape]\n", MADE, 1)
CASES = {
    "more examples of questions": (
        '[models.student.task."glue/cola".distill.intermediate]',
        '[models.student.task.squad_v1]\naugment = { copies = 2 }\n[models.student.task."glue/cola".distill.intermediate]',
        "models.student.task.squad_v1.augment: augmentation replaces words, which would shift the positions of answers; delete this table",
    ),
    "more examples of a model that makes up none": (
        '[models.student]\nsource = "scratch"',
        '[models.small.task."glue/cola"]\naugment = { copies = 2 }\n[models.student]\nsource = "scratch"',
        'models.small.task."glue/cola".augment: changes the model\'s distill.augment table, but there is none; delete this table',
    ),
    "too many examples for a task": (
        '[models.student.task."glue/cola".distill.intermediate]',
        '[models.student.task."glue/cola"]\naugment = { copies = 101 }\n[models.student.task."glue/cola".distill.intermediate]',
        'models.student.task."glue/cola".augment.copies: must be at most 100, not 101',
    ),
    "qat without a scheme": (
        'recipe = "qat"\nscheme = "engine_int8"',
        'recipe = "qat"',
        "models.small.scheme: is missing; recipe 'qat' needs the name of the scheme to train with",
    ),
    "qat of a model of the hub": (
        'source = "model:tiny"\nrecipe = "qat"',
        'source = "hub:owner/name"\nrecipe = "qat"',
        "models.small.source: 'qat' starts from an FP32 model of this suite; write model:NAME, not 'hub:owner/name'",
    ),
    "qat of qat": (
        '[models.student]\nsource = "scratch"',
        '[models.twice]\nsource = "model:small"\nrecipe = "qat"\nscheme = "q8bert"\n'
        'train = { learning_rate = 1e-5, epochs = 1 }\n[models.student]\nsource = "scratch"',
        "models.twice.source: 'model:small' has quantizers already; name the FP32 model that it is made from",
    ),
    "unknown scheme of qat": (
        'recipe = "qat"\nscheme = "engine_int8"',
        'recipe = "qat"\nscheme = "engine_int4"',
        "models.small.scheme: unknown scheme 'engine_int4'; did you mean 'engine_int8'?",
    ),
    "scheme of a student": (
        'recipe = "distill"',
        'recipe = "distill"\nscheme = "engine_int8"',
        "models.student.scheme: recipe 'distill' does not train quantizers; delete this key, or move it to a [[backends]] entry",
    ),
    "no teacher": (
        'teacher = "model:tiny"\n',
        "",
        "models.student.teacher: is missing; recipe 'distill' needs 'model:NAME', a model of this suite",
    ),
    "unknown teacher": (
        'teacher = "model:tiny"',
        'teacher = "model:tyni"',
        "models.student.teacher: unknown model 'tyni'; did you mean 'tiny'?",
    ),
    "teacher of the hub": (
        'teacher = "model:tiny"',
        'teacher = "hub:owner/name"',
        "models.student.teacher: must be 'model:NAME', a model of this suite, not 'hub:owner/name'",
    ),
    "teacher of a qat model": (
        'scheme = "engine_int8"\ntrain',
        'scheme = "engine_int8"\nteacher = "model:tiny"\ntrain',
        "models.small.teacher: recipe 'qat' has no teacher; delete this key, or set recipe = 'distill'",
    ),
    "its own teacher": (
        'teacher = "model:tiny"',
        'teacher = "model:student"',
        "models.student.teacher: models form a circle: 'student' -> 'student'; name another model here",
    ),
    "unknown stage": (
        "[models.student.distill.general]",
        "[models.student.distill.genral]",
        "models.student.distill.genral: unknown key; did you mean 'general'?",
    ),
    "misspelt setting of a stage": (
        "epochs = 20",
        "epoch = 20",
        "models.student.distill.intermediate.epoch: unknown key; did you mean 'epochs'?",
    ),
    "setting of a stage": (
        "learning_rate = 3e-5",
        "learning_rate = 3",
        "models.student.distill.prediction.learning_rate: must be at most 1, not 3",
    ),
    "a task's own stage": (
        '[models.student.task."glue/cola".distill.intermediate]',
        '[models.student.task."glue/cola".distill.labels]',
        'models.student.task."glue/cola".distill.labels: the model has no such stage; add it to the model\'s distill table, or delete this table',
    ),
    "made-up examples without a teacher": (
        "temperature = 2.0\n[models.student.distill.general]\n[models.student.distill.intermediate]\nepochs = 20\n[models.student.distill.prediction]",
        "[models.student.distill.general]\n[models.student.distill.intermediate]\nepochs = 20\n[models.student.distill.labels]",
        "models.student.distill.augment: augmentation needs a teacher to label new examples, and stage 'labels' has none; delete one of them",
    ),
    "a temperature of nothing": (
        'prediction]\nlearning_rate = 3e-5\n[models.student.distill.augment]\nmasked_lm = "hub:owner/words"',
        "labels]\nlearning_rate = 3e-5",
        "models.student.distill.temperature: only stage 'prediction' uses it; delete this key, or add that stage",
    ),
    "a head that nothing trains": (
        "temperature = 2.0\n[models.student.distill.general]\n[models.student.distill.intermediate]\nepochs = 20\n[models.student.distill.prediction]\nlearning_rate = 3e-5",
        "[models.student.distill.general]\n[models.student.distill.intermediate]\nepochs = 20",
        "models.student.distill: no stage trains the output layer; add stage prediction, or stage labels to train without a teacher",
    ),
    "misspelt examples of the sample": (
        "[sample.train]",
        "[sample.models.student.distill.augment]\ncopis = 1\n[sample.train]",
        "sample.models.student.distill.augment.copis: unknown key; did you mean 'copies'?",
    ),
    "words of examples of the sample": (
        "[sample.train]",
        "[sample.models.student.distill.augment]\ntrain = { epoch = 1 }\n[sample.train]",
        "sample.models.student.distill.augment.train.epoch: unknown key; did you mean 'epochs'?",
    ),
    "a list of settings for examples of the sample": (
        "[sample.train]",
        "[sample.models.student.distill.augment]\ntrain = []\n[sample.train]",
        "sample.models.student.distill.augment.train: must be a table of training settings, not a list",
    ),
    "examples of the sample alone": (
        '[models.student.distill.augment]\nmasked_lm = "hub:owner/words"',
        "[sample.models.student.distill.augment]\ncopies = 1",
        "sample.models.student.distill.augment: changes the model's distill.augment table, but there is none; delete this table",
    ),
    "layers of random weights": (
        "temperature = 2.0",
        "layers = 1",
        "models.student.distill.layers: selects layers of a source with weights; for source 'scratch' set architecture.num_hidden_layers instead",
    ),
    "words of a model of the suite": (
        "hub:owner/words",
        "model:tiny",
        "models.student.distill.augment.masked_lm: must be hub:ID, package:NAME/FOLDER or a folder, not 'model:tiny'",
    ),
    "vectors elsewhere": (
        'masked_lm = "hub:owner/words"',
        'masked_lm = "hub:owner/words"\nglove = "../glove.txt"',
        "models.student.distill.augment.glove: '../glove.txt' is not below the suite file's folder; write a relative path without '..'",
    ),
    "a student deeper than its teacher": (
        "num_hidden_layers = 1,",
        "num_hidden_layers = 4,",
        "models.student.architecture.num_hidden_layers: 4 layers do not divide the teacher's 2 evenly; use 1 or 2",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_mistake_is_one_line(problems: Problems, case: str) -> None:
    old, new, line = CASES[case]
    assert problems((old, new), text=SUITE) == [line]


def test_a_good_suite_is_read_whole(tmp_path: Path) -> None:
    suite = load(SUITE, tmp_path)
    distill = suite.models["student"].distill
    assert distill is not None
    assert distill.stages == {"general": {}, "intermediate": {"epochs": 20}, "prediction": {"learning_rate": 3e-5}}
    assert distill.temperature == 2.0
    assert distill.augment is not None
    assert (distill.augment.probability, distill.augment.candidates, distill.augment.copies) == (0.4, 15, 20)


def test_students_of_the_sample_have_a_depth_that_fits(problems: Problems) -> None:
    sizes = "{ num_hidden_layers = 3, hidden_size = 8, num_attention_heads = 2, intermediate_size = 8 }"
    stand_in = f"[sample.models.student]\narchitecture = {sizes}\n"
    assert problems(text=SUITE + stand_in) == [
        "sample.models.student.architecture.num_hidden_layers: 3 layers do not divide the teacher's 2 evenly; use 1 or 2"
    ]
    assert problems(text=GOOD + stand_in) == ["sample.models.student: unknown model; known: base, tiny, again"]


def test_a_suite_of_questions_alone_has_no_augmentation(problems: Problems) -> None:
    text = SUITE.replace('["squad_v1", "glue/cola"]', '["squad_v1"]')
    text = text.replace('[models.tiny.task."glue/cola"]\ntrain = { epochs = 10 }\nshape = { max_length = 64 }\n', "")
    text = text.replace('[models.student.task."glue/cola".distill.intermediate]\nepochs = 50\n', "")
    assert problems(text=text) == [
        "models.student.distill.augment: augmentation replaces words, which would shift the positions of answers, and all tasks are"
        " question answering; delete this table"
    ]


def test_a_circle_may_go_through_a_teacher(problems: Problems) -> None:
    more = f"""
[models.last]
source = "model:small"
recipe = "finetune"
{TRAIN}
[models.other]
source = "model:tiny"
recipe = "distill"
teacher = "model:student"
{TRAIN}
distill = {{ labels = {{}} }}
[shape]
"""
    lines = problems(
        ("[shape]\n", more),
        ('[models.small]\nsource = "model:tiny"', '[models.small]\nsource = "model:other"'),
        ('[models.student]\nsource = "scratch"', '[models.student]\nsource = "model:last"'),
        ("num_attention_heads = 2, intermediate_size = 256 }", "num_attention_heads = 2, intermediate_size = 256 }#"),
        ("architecture = { num_hidden_layers = 1", "#architecture = { num_hidden_layers = 1"),
        text=SUITE,
    )
    assert lines == [
        "models.small.source: models form a circle: 'small' -> 'other' -> 'student' -> 'last' -> 'small'; name another model here"
    ]
