"""Plans of models of random weights: what their keys depend on, and what they are not run on."""

from __future__ import annotations

from dataclasses import replace

from harness.plan.spec import CheckpointSpec
from tests.plan.test_plan import SAMPLE, Make, find_cell, make

__all__ = ["make"]  # the fixture

SIZES = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
TABLE = "architecture = { " + ", ".join(f"{name} = {size}" for name, size in SIZES.items()) + " }"
RANDOM = ('recipe = "load"', f'recipe = "random"\n{TABLE}')


def test_random_weights_have_a_key_of_their_own(make: Make) -> None:
    """The recipe alone tells them from a model that is loaded; sizes and seed are part of the key."""
    spec = find_cell(make(RANDOM), "base").checkpoint
    assert (spec.recipe, spec.source, spec.seed, spec.speed_only) == ("random", "hub:owner/name", 1, True)
    assert (spec.architecture, spec.train, spec.scheme, spec.labels) == (SIZES, None, None, None)
    assert "train" not in (spec.identity or {})  # the rows of the training set do not change it
    loaded = replace(spec, recipe="load")
    others = [loaded, replace(spec, seed=2), replace(spec, architecture={**SIZES, "num_hidden_layers": 6})]
    assert len({spec.key, *(other.key for other in others)}) == 4
    assert find_cell(make(RANDOM), "base", seed=2).checkpoint.key == others[1].key


def test_the_sources_sizes_stay_without_a_table(make: Make) -> None:
    spec = find_cell(make(('recipe = "load"', 'recipe = "random"')), "base").checkpoint
    assert spec.architecture is None


def test_static_rows_are_calibrated_on_the_tasks_training_rows(make: Make) -> None:
    spec: CheckpointSpec = find_cell(make(RANDOM), "base", index=1).checkpoint
    assert (spec.recipe, spec.scheme, spec.speed_only) == ("ptq", "engine_int8", True)
    assert spec.parent is not None and spec.parent.recipe == "random"
    assert (spec.identity or {})["train"] == "t"


def test_a_simulation_of_random_weights_says_nothing(make: Make) -> None:
    simulated = ('name = "onnxruntime_int8"\nscheme', 'name = "fake_quant_w8a8"\nscheme')
    assert find_cell(make(RANDOM, simulated), "base", index=1).blocked == (
        "base: a simulation has no speed, and random weights have no accuracy",
        "take a backend that is an engine",
    )
    assert (
        find_cell(make(simulated), "base", index=1).blocked
        != find_cell(make(RANDOM, simulated), "base", index=1).blocked
    )


def test_a_stand_in_on_the_sample_has_random_weights_too(make: Make) -> None:
    spec = find_cell(make(RANDOM, data=SAMPLE), "base").checkpoint
    assert (spec.recipe, spec.source, (spec.architecture or {})["num_hidden_layers"]) == ("random", "scratch", 2)
