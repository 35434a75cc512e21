"""Specs of very small QAT models and students."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.plan.spec import CORPUS, CheckpointSpec
from tasks import Shape
from tasks.sample import SAMPLE_VERSION
from tests.run.small import SIZES, sample_spec, train

TEACHER = sample_spec(architecture={**SIZES, "num_hidden_layers": 2}, train=train(max_steps=2))


def stage(name: str, parent: CheckpointSpec | None = None, **changes: Any) -> CheckpointSpec:
    """A stage of a student that has half the layers and half the width of its teacher."""
    corpus: dict[str, Any] = {"task": CORPUS, "shape": Shape(48), "identity": {"corpus": f"sample {SAMPLE_VERSION}"}}
    base = sample_spec(
        model="student",
        recipe="distill",
        architecture=None if parent else {**SIZES, "hidden_size": 8},
        parent=parent,
        teacher=TEACHER,
        distill={"stage": name},
        **(corpus if name == "general" else {}),
    )
    return replace(base, **changes)


def qat_spec(parent: CheckpointSpec, scheme: str = "engine_int8", **changes: Any) -> CheckpointSpec:
    """A model that is trained for a few steps with the quantizers of a scheme."""
    return replace(
        parent,
        recipe="qat",
        source=f"model:{parent.model}",
        model="tiny-qat",
        architecture=None,
        train=train(max_steps=4, learning_rate=1e-3),
        scheme=scheme,
        calibration={"samples": 8, "batch_size": 4},
        parent=parent,
        **changes,
    )
