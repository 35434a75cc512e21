"""GLUE's metrics as an `evaluate.Metric`: `evaluate.load(".../tasks/metrics/glue.py", "cola")`, or `Glue("cola")`."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from tasks import task_facts, task_names
from tasks.metrics.labels import COEFFICIENTS


class Glue(evaluate.Metric):  # type: ignore[misc]
    """predictions, references: class numbers in GLUE's numbering, or scores for stsb. Gives coefficients, 1 is best."""

    def _info(self) -> evaluate.MetricInfo:
        facts = task_facts(f"glue/{self.config_name}")
        if facts is None:
            names = ", ".join(name.removeprefix("glue/") for name in task_names() if name.startswith("glue/"))
            raise KeyError(f"GLUE's tasks are {names}; '{self.config_name}' is none of them")
        self._names = facts.metrics
        value = datasets.Value("float64" if facts.kind == "regression" else "int64")
        return evaluate.MetricInfo(
            description="The metrics that GLUE reports for a task.",
            citation="Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for NLU, ICLR 2019",
            inputs_description=self.__doc__,
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        columns = np.asarray(predictions), np.asarray(references)
        return {name: COEFFICIENTS[name](*columns) for name in self._names}
