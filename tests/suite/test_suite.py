"""Suite files: what is read, and the line that reports each mistake."""

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

Problems = Callable[..., list[str]]


def load(text: str | bytes, folder: Path, name: str = "one.toml") -> Suite:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_suite(str(file))


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problems:
    """The problems of GOOD with replacements, or of another text, without the file's name."""

    def problems_of(*changes: tuple[str, str], text: str | bytes = GOOD) -> list[str]:
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

    return problems_of


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
    assert suite.measure.scenarios == ("interleaved", "single_stream", "offline")
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


def test_all_problems_are_reported_in_the_order_of_the_file(problems: Problems) -> None:
    assert problems(
        ("title", "titel"),
        ('recipe = "load"', 'recipe = "loda"'),
        ("epochs = 10", "epoch = 10"),
        ("[1, 32]", "[0, 32, 32]"),
        ('scheme = "engine_int8"\nlabel', 'scheme = "engine_int8_asymmetric"\nlabel'),
        ("f1 = 88.2", "F1 = 88.2"),
    ) == [
        "title: is missing; add it",
        "titel: unknown key; did you mean 'title'?",
        "models.base.recipe: unknown value 'loda'; did you mean 'load'?",
        "models.tiny.task.\"glue/cola\".train.epoch: unknown key; did you mean 'epochs'?",
        "shape.batch_sizes[0]: must be at least 1, not 0",
        "shape.batch_sizes[2]: 32 is listed twice; delete one",
        "backends[3].scheme: 'tensorrt_int8' supports symmetric schemes only, and 'engine_int8_asymmetric' is asymmetric;"
        " use one of engine_int8, q8bert",
        "references[0].metrics.F1: 'squad_v1' has no such metric; did you mean 'f1'?",
    ]


@pytest.mark.parametrize("case", CASES)
def test_one_mistake_is_one_line(problems: Problems, case: str) -> None:
    old, new, line = CASES[case]
    assert problems((old, new)) == [line]


def test_multi_stream_needs_more_than_one_sample(problems: Problems) -> None:
    scenario = ("rounds = 5", 'scenarios = ["multi_stream"]')
    line = "shape.batch_sizes: scenario 'multi_stream' needs a batch size of at least {}; add one"
    assert problems(("[1, 32]", "[1]"), scenario) == [line.format(2)]
    mlperf = ("rounds = 5", 'profile = "mlperf"\nscenarios = ["multi_stream"]')
    assert problems(("[1, 32]", "[1, 4]"), mlperf) == [line.format(8)]


def test_a_circle_of_models_is_reported_once(problems: Problems) -> None:
    lines = problems(('source = "scratch"', 'source = "model:again"'), ("architecture = {", "#"))
    assert lines == ["models.tiny.source: models form a circle: 'tiny' -> 'again' -> 'tiny'; name another model here"]


def test_only_questions_have_windows(problems: Problems) -> None:
    lines = problems(
        ('["squad_v1", "glue/cola"]', '["glue/cola"]'),
        ('task = "squad_v1"\nmetrics = { f1', 'task = "glue/cola"\nmetrics = { matthews_correlation'),
    )
    assert lines == [
        "shape.doc_stride: only question answering uses it, and no task of the suite is of that kind; delete this key",
        "sample.doc_stride: only question answering uses it, and no task of the suite is of that kind; delete this key",
    ]


def test_generated_data_needs_a_model_with_its_vocabulary(problems: Problems) -> None:
    lines = problems(("title", 'data = "sample"\ntitle'), (GOOD[GOOD.index("[sample]") :], ""))
    assert lines == [
        "models.base.source: data = 'sample' needs source 'scratch', or a [sample] table that gives the model's sizes and training"
    ]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'title = "x"\ntasks = [', "end of file: Invalid value"),
        (b'title = "x"\ntitle = "y"\n', "line 2: Cannot overwrite a value"),
        (b'title = "x"\n\ntasks = ["caf\xe9"]\n', "line 3: is not UTF-8; save the file as UTF-8"),
        (b".".join([b"a"] * 100_000) + b" = 1", "line 1: has more than 100 dots; nest tables less deeply"),
        (b"a = " + b"[" * 10_000, "tables or lists are nested too deeply; use fewer levels"),
        (b"a = " + b"9" * 5_000, "not TOML: Exceeds the limit (4300 digits) for integer string conversion"),
        (b"#" * 300_000, "is larger than 256 KiB, the limit; give the path of a suite file"),
    ],
    ids=["cut off", "twice", "latin-1", "dots", "nested", "digits", "huge"],
)
def test_a_file_that_is_not_toml_is_one_line(problems: Problems, content: bytes, line: str) -> None:
    (problem,) = problems(text=content)
    assert problem.startswith(line)


def test_deep_tables_are_no_traceback(problems: Problems) -> None:
    deep = ".".join(["a"] * 90)
    assert problems(text=f"{deep} = 1\n{GOOD}")[0].startswith("a: unknown key")
    assert problems(("[models.again]", f'[models.tiny.task."glue/cola".train.{deep}]\nx = 1\n[models.again]'))


def test_a_value_in_a_message_never_breaks_the_line(problems: Problems) -> None:
    (line,) = problems((r'"hub:owner/name"', r'"hub:a\nb\u001b[31m"'))
    assert line.startswith(r"models.base.source: 'a\nb\x1b[31m' is not a model id")


def test_an_absurd_file_is_not_listed_to_the_end(problems: Problems) -> None:
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
        ("absent.toml", "absent.toml: no such file; give the path of a suite file, or a suite's name"),
        ("folder.toml", "folder.toml: is a folder; give the path of a suite file"),
        ("a\0b.toml", r"a\x00b.toml: no such file; give the path of a suite file, or a suite's name"),
        (
            "Upper Case.toml",
            "Upper Case.toml: rename the file: use lower-case letters, digits, '.', '_' and '-' only, and end with .toml",
        ),
        ("x" * 300 + ".toml", "x" * 300 + ".toml: cannot be read (File name too long); give the path of a suite file"),
    ],
)
def test_a_path_that_is_not_a_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "Upper Case.toml").write_text(GOOD)
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert caught.value.problems == (line,)


def test_the_schema_beside_the_suites_is_that_of_the_tables() -> None:
    """If it is stale, run `python -m harness.suite.schema`."""
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
    count = 0
    for path in sorted((ROOT / "suites").glob("*.toml")):
        for reference in load_suite(str(path)).references:
            if reference.task == "glue/stsb":
                count += 1
                assert any("correlation" in note or "Spearman" in note for note in reference.notes), (path, reference)
    assert count >= 7


def test_the_description_of_auto_precision_names_all_it_may_be() -> None:
    description = str(TrainSettings.model_fields["precision"].description)
    assert all(
        precision in description for precision in ("bf16", "fp16 with loss scaling on a CUDA device", "fp32 on a CPU")
    )
