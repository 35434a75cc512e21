"""GLUE's metrics as an `evaluate.Metric`: `evaluate.load(".../tasks/metrics/glue.py", "cola")`, or `Glue("cola")`."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from tasks.definitions import DEFINITIONS
from tasks.metrics.labels import COEFFICIENTS


class Glue(evaluate.Metric):  # type: ignore[misc]
    """predictions, references: class numbers as GLUE counts them, or scores for stsb. Returns coefficients; 1 is best."""

    def _info(self) -> evaluate.MetricInfo:
        tasks = {task.short: task for task in DEFINITIONS.values() if task.benchmark == "GLUE"}
        if self.config_name not in tasks:
            raise KeyError(f"'{self.config_name}' is not a GLUE task; use one of {', '.join(tasks)}")
        self._names = tasks[self.config_name].metrics
        value = datasets.Value("float64" if tasks[self.config_name].kind == "regression" else "int64")
        return evaluate.MetricInfo(
            description="The metrics that GLUE reports for a task.",
            citation="Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for NLU, ICLR 2019",
            inputs_description=self.__doc__,
            features=datasets.Features({"predictions": value, "references": value}),
        )

    def _compute(self, predictions: Sequence[float], references: Sequence[float]) -> dict[str, float]:
        columns = np.asarray(predictions), np.asarray(references)
        return {name: COEFFICIENTS[name](*columns) for name in self._names}
