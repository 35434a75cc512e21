"""Schemes that a suite file declares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli.main import main
from harness.cli.plan_lines import plan_lines
from harness.errors import SuiteError
from harness.suite.load import load_suite
from tests.plan.test_plan import Make, make
from tests.suite.suite_mistakes import GOOD, TRAIN

__all__ = ["make"]  # the fixture
OWN = '[schemes.mine]\nbase = "engine_int8"\nkeep_float = ["*.output.dense"]\n\n[shape]\n'
FULL = 'engine_int8 with keep_float = ["*.output.dense"]'


def with_scheme(name: str) -> tuple[str, str]:
    return 'scheme = "engine_int8_asymmetric"', f'scheme = "{name}"'


def test_an_entry_of_backends_may_name_it(make: Make) -> None:
    plan = make(with_scheme("mine"), ("[shape]\n", OWN))
    cells = [cell for cell in plan.cells if cell.label == "onnxruntime_int8 (mine)"]
    assert {cell.scheme for cell in cells} == {FULL}
    assert {cell.checkpoint.scheme for cell in cells} == {FULL}
    assert cells
    plain = [cell for cell in plan.cells if cell.label == "onnxruntime_int8 (engine_int8)"]
    assert not {cell.key for cell in cells} & {cell.key for cell in plain}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            'base = "engine_int8"',
            'base = "engine_int9"',
            "schemes.mine.base: unknown scheme 'engine_int9'; did you mean",
        ),
        ("keep_float = [", "keep_floats = [", "schemes.mine.keep_floats: unknown key; did you mean 'keep_float'?"),
        ('base = "engine_int8"', 'base = "aimet_w8a8"', "schemes.mine: keep_float needs a base that quantizes linear"),
        ("[schemes.mine]", "[schemes.q8bert]", "schemes.q8bert: a scheme of this name exists already; rename it"),
        ("keep_float = [", "smoothing = 1.5\nkeep_float = [", "schemes.mine.smoothing: must be below 1, not 1.5"),
        ("[schemes.mine]", "[schemes.others]", "unknown scheme 'mine'"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    change = with_scheme("mine")
    file = tmp_path / "one.toml"
    file.write_text(GOOD.replace(*change).replace("[shape]\n", OWN.replace(old, new), 1))
    with pytest.raises(SuiteError) as caught:
        load_suite(str(file))
    assert any(line in problem for problem in caught.value.problems), caught.value.problems


def test_smoothing_and_corrected_biases_are_options_of_a_scheme(make: Make) -> None:
    own = '[schemes.mine]\nbase = "engine_int8"\nsmoothing = 0.5\nbias_correction = true\n\n[shape]\n'
    plan = make(with_scheme("mine"), ("[shape]\n", own))
    schemes = {cell.scheme for cell in plan.cells if cell.label == "onnxruntime_int8 (mine)"}
    assert schemes == {"engine_int8 with bias_correction = true; smoothing = 0.5"}
    assert "engine_int8 with bias_correction = true; smoothing = 0.5" in " ".join(" ".join(plan_lines(plan)).split())


def test_training_with_smoothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "one.toml"
    model = '[models.trained]\nsource = "model:base"\nrecipe = "qat"\nscheme = "mine"\n' + TRAIN + "\n"
    file.write_text(GOOD.replace("[shape]\n", OWN.replace("keep_float", "smoothing = 0.5\nkeep_float"), 1) + model)
    with pytest.raises(SuiteError, match=r"models\.trained\.scheme: its smoothing is for calibration only") as caught:
        load_suite(str(file))
    assert len(caught.value.problems) == 1


def test_the_verb_lists_ours_and_the_suites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "one.toml"
    file.write_text(GOOD.replace("[shape]\n", OWN, 1))
    assert main(["schemes", str(file), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert set(rows) > {"engine_int8", "q8bert", "mine"}
    assert rows["mine"]["keep_float"] == "*.output.dense"
    assert main(["schemes"]) == 0
    assert "engine_int8_asymmetric" in capsys.readouterr().out
