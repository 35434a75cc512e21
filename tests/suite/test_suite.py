"""Suite files: what is read, and every line that is said of a wrong one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import SuiteError
from harness.suite.load import load_suite
from harness.suite.schema import schema
from harness.suite.tables import Suite
from harness.suite.train import TrainSettings
from tests.suite.suite_mistakes import CASES, GOOD

ROOT = Path(__file__).resolve().parents[2]

Tell = Callable[..., list[str]]


def load(text: str | bytes, folder: Path, name: str = "one.toml") -> Suite:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_suite(str(file))


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Lines about GOOD with replacements (or about a text of its own), the file's name cut off."""

    def tell(*changes: tuple[str, str], text: str | bytes = GOOD) -> list[str]:
        monkeypatch.chdir(tmp_path)
        for old, new in changes:
            assert isinstance(text, str)
            assert old in text, old
            text = text.replace(old, new, 1)
        with pytest.raises(SuiteError) as caught:
            load(text, tmp_path)
        assert all("\n" not in line for line in caught.value.problems)
        assert all(line.startswith("one.toml: ") for line in caught.value.problems)
        return [line.removeprefix("one.toml: ") for line in caught.value.problems]

    return tell


def test_a_good_suite_is_read_whole(tmp_path: Path) -> None:
    suite = load(GOOD, tmp_path)
    assert (suite.name, suite.folder, suite.title) == ("one", tmp_path, "A suite")
    assert suite.tasks == ("squad_v1", "glue/cola")
    assert suite.seeds == (1, 2)
    assert suite.models["tiny"].task["glue/cola"].train == {"epochs": 10}
    assert suite.models["tiny"].task["glue/cola"].shape.max_length == 64
    assert suite.shape.max_query_length == 64
    assert suite.shape.padding == "longest"
    assert suite.measure.rounds == 5
    assert suite.measure.scenarios == ("single_stream", "offline")
    assert suite.labels == (
        "torch_fp32",
        "onnxruntime_int8 (engine_int8)",
        "onnxruntime_int8 (engine_int8_asymmetric)",
        "TensorRT INT8",
    )
    assert [suite.is_baseline(index) for index in range(4)] == [True, False, False, False]


@pytest.mark.parametrize("path", sorted((ROOT / "suites").glob("*.toml")), ids=lambda path: path.stem)
def test_our_own_suites_have_no_problems(path: Path) -> None:
    assert load_suite(str(path)).name == path.stem


def test_every_problem_is_told_at_once_in_the_order_of_the_file(problems: Tell) -> None:
    assert problems(
        ("title", "titel"),
        ('recipe = "load"', 'recipe = "loda"'),
        ("epochs = 10", "epoch = 10"),
        ("[1, 32]", "[0, 32, 32]"),
        ('scheme = "engine_int8"\nlabel', 'scheme = "engine_int8_asymmetric"\nlabel'),
        ("f1 = 88.2", "F1 = 88.2"),
    ) == [
        "title: is missing",
        "titel: unknown key; did you mean 'title'?",
        "models.base.recipe: unknown value 'loda'; did you mean 'load'?",
        "models.tiny.task.\"glue/cola\".train.epoch: unknown key; did you mean 'epochs'?",
        "shape.batch_sizes[0]: must be at least 1, not 0",
        "shape.batch_sizes[2]: 32 is there twice; delete one",
        "backends[3].scheme: 'engine_int8_asymmetric' is asymmetric, and 'tensorrt_int8' takes symmetric schemes only: engine_int8, q8bert",
        "references[0].metrics.F1: 'squad_v1' has no such metric; did you mean 'f1'?",
    ]


@pytest.mark.parametrize("case", CASES)
def test_one_mistake_is_one_line(problems: Tell, case: str) -> None:
    old, new, line = CASES[case]
    assert problems((old, new)) == [line]


def test_multi_stream_needs_more_than_one_sample(problems: Tell) -> None:
    scenario = ("rounds = 5", 'scenarios = ["multi_stream"]')
    line = "shape.batch_sizes: 'multi_stream' asks for several samples at once; add a size of at least {}"
    assert problems(("[1, 32]", "[1]"), scenario) == [line.format(2)]
    mlperf = ("rounds = 5", 'profile = "mlperf"\nscenarios = ["multi_stream"]')
    assert problems(("[1, 32]", "[1, 4]"), mlperf) == [line.format(8)]


def test_a_circle_of_models_is_told_once(problems: Tell) -> None:
    lines = problems(('source = "scratch"', 'source = "model:again"'), ("architecture = {", "#"))
    assert lines == ["models.tiny.source: models go in a circle: 'tiny' -> 'again' -> 'tiny'"]


def test_only_questions_have_windows(problems: Tell) -> None:
    lines = problems(
        ('["squad_v1", "glue/cola"]', '["glue/cola"]'),
        ('task = "squad_v1"\nmetrics = { f1', 'task = "glue/cola"\nmetrics = { matthews_correlation'),
    )
    assert lines == [
        "shape.doc_stride: only question answering has it, and none of the tasks does: delete it",
        "sample.doc_stride: only question answering has it, and none of the tasks does: delete it",
    ]


def test_generated_data_needs_a_model_that_knows_its_words(problems: Tell) -> None:
    lines = problems(("title", 'data = "sample"\ntitle'), (GOOD[GOOD.index("[sample]") :], ""))
    assert lines == [
        "models.base.source: generated data needs source 'scratch' here, or a [sample] table with a model that stands in"
    ]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'title = "x"\ntasks = [', "end of file: Invalid value"),
        (b'title = "x"\ntitle = "y"\n', "line 2: Cannot overwrite a value"),
        (b'title = "x"\n\ntasks = ["caf\xe9"]\n', "line 3: is not UTF-8"),
        (b".".join([b"a"] * 100_000) + b" = 1", "line 1: more than 100 dots; that is nested too deeply"),
        (b"a = " + b"[" * 10_000, "tables or lists are nested too deeply"),
        (b"a = " + b"9" * 5_000, "not TOML: Exceeds the limit (4300 digits) for integer string conversion"),
        (b"#" * 300_000, "is larger than 256 KiB; that is no suite"),
    ],
    ids=["cut off", "twice", "latin-1", "dots", "nested", "digits", "huge"],
)
def test_a_file_that_is_no_toml_is_one_line(problems: Tell, content: bytes, line: str) -> None:
    (found,) = problems(text=content)
    assert found.startswith(line)


def test_deep_tables_are_no_traceback(problems: Tell) -> None:
    deep = ".".join(["a"] * 90)
    assert problems(text=f"{deep} = 1\n{GOOD}")[0].startswith("a: unknown key")
    assert problems(("[models.again]", f'[models.tiny.task."glue/cola".train.{deep}]\nx = 1\n[models.again]'))


def test_what_a_line_shows_never_breaks_it(problems: Tell) -> None:
    (line,) = problems((r'"hub:owner/name"', r'"hub:a\nb\u001b[31m"'))
    assert line.startswith(r"models.base.source: not the id of a model on the hub: 'a\nb\x1b[31m'")


def test_an_absurd_file_is_not_listed_to_the_end(problems: Tell) -> None:
    lines = problems(text="".join(f"k{number} = 1\n" for number in range(2_000)))
    assert len(lines) == 501
    assert lines[-1].startswith("and ")


def test_names_are_found_in_their_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "suites"
    folder.mkdir()
    load(GOOD, folder, "good.toml")
    load(GOOD, tmp_path, "outside.toml")
    assert load_suite("good", folder).name == "good"
    with pytest.raises(SuiteError, match=r"^unknown suite 'goood'; did you mean 'good'\? \(suites: good\)$"):
        load_suite("goood", folder)
    with pytest.raises(SuiteError, match=r"^unknown suite 'outside'; known: good$"):
        load_suite("outside", folder)
    for odd in ("", "..", "good\0", "x" * 10_000):
        with pytest.raises(SuiteError, match=r"^unknown suite"):
            load_suite(odd, folder)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("absent.toml", "absent.toml: there is no such file"),
        ("folder.toml", "folder.toml: is a folder; name a suite file in it"),
        ("a\0b.toml", r"a\x00b.toml: there is no such file"),
        (
            "Upper Case.toml",
            "Upper Case.toml: the file's name must be small letters, digits, '.', '_', '-', and end in .toml",
        ),
        ("x" * 300 + ".toml", "x" * 300 + ".toml: cannot be read: File name too long"),
    ],
)
def test_a_path_that_is_no_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "Upper Case.toml").write_text(GOOD)
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert caught.value.problems == (line,)


def test_the_schema_beside_the_suites_is_of_these_forms() -> None:
    """Stale? `python -m harness.suite.schema` writes it again."""
    assert json.loads((ROOT / "suites" / "schema.json").read_text()) == schema()


def test_checking_a_suite_imports_nothing_heavy() -> None:
    code = (
        "import sys; from harness.suite.load import load_suite; load_suite('squad_int8');"
        "print([m for m in ('torch', 'transformers', 'onnx', 'onnxruntime', 'datasets', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["squad_tiny", "q8bert", "tinybert", "glue_w8a8"])
def test_published_recipes_shuffle_their_training_data(name: str) -> None:
    for model in load_suite(name).models.values():
        assert model.train is not None and not model.train.group_by_length


def test_a_correlation_that_no_source_names_is_noted_as_such() -> None:
    found = 0
    for path in sorted((ROOT / "suites").glob("*.toml")):
        for reference in load_suite(str(path)).references:
            if reference.task == "glue/stsb":
                found += 1
                assert any("correlation" in note or "Spearman" in note for note in reference.notes), (path, reference)
    assert found >= 7


def test_what_auto_precision_may_be_is_told() -> None:
    told = str(TrainSettings.model_fields["precision"].description)
    assert all(one in told for one in ("bf16", "fp16 with loss scaling on a CUDA device", "fp32 on a processor"))
