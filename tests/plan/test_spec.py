"""Keys of checkpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.plan.spec import CheckpointSpec
from harness.suite.train import TrainSettings
from tasks import DataRef, Shape

GIVEN: dict[str, Any] = {"learning_rate": 1e-4, "epochs": 2.0}
SPEC = CheckpointSpec("m", "squad_v1", "finetune", "scratch", 1, Shape(64), DataRef("sample"), train=GIVEN)


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"checkpoint_every": 7}, True),
        ({"keep_checkpoints": 3}, True),
        ({"batch_size": 16}, True),  # the default, written out
        ({"batch_size": 8}, False),
        ({"epochs": 3.0}, False),
        ({"dropout": 0.1}, False),
    ],
)
def test_key_holds_the_settings_that_change_the_weights(changed: dict[str, Any], same: bool) -> None:
    assert (replace(SPEC, train=GIVEN | changed).key == SPEC.key) is same


def test_checkpoints_that_exist_are_found_again() -> None:
    """Whatever else changes: a training is not to be repeated for it. As the keys were in the first version."""
    assert SPEC.key == "a19759f3f0cd4995"
    assert replace(SPEC, recipe="ptq", train=None, scheme="engine_int8", parent=SPEC).key == "9814e7b721574446"


def test_a_setting_at_its_default_leaves_keys_alone() -> None:
    assert replace(SPEC, train=TrainSettings.model_validate(GIVEN).model_dump()).key == SPEC.key
    assert replace(SPEC, scheme="engine_int8").key != SPEC.key
