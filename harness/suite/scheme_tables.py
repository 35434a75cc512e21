"""The tables of a scheme that a suite file declares, and the types of keys that all tables share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field

from harness.suite.train import Table

T = TypeVar("T")


List = Annotated[tuple[T, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]


Text = Annotated[str, Field(min_length=1, max_length=2000)]


class WeightChanges(Table):
    granularity: Literal["per_tensor", "per_channel"] | None = Field(None, description="scales: one, or one an output")
    estimator: Literal["min_max", "percentile", "mse"] | None = Field(None, description="how ranges are found")
    percentile: float | None = Field(None, gt=50, le=100, description="for estimator = 'percentile'")


class ActivationChanges(Table):
    symmetric: bool | None = Field(None, description="whether the zero point is 0")
    estimator: Literal["min_max", "percentile", "mse", "output_error", "ema", "entropy"] | None = Field(
        None, description="how calibration finds ranges"
    )
    percentile: float | None = Field(None, gt=50, le=100, description="for estimator = 'percentile'")


class OwnScheme(Table):
    """A scheme of one's own: another one with changes."""

    base: Text = Field(description="the scheme that it changes; `quantboard schemes` lists them")
    weights: WeightChanges = WeightChanges()
    activations: ActivationChanges = ActivationChanges()
    keep_float: List[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*?\[\]-]{1,200}$")]] = Field(
        (), description="linear layers that stay float, by name: 'encoder.layer.0.*', '*.output.dense'"
    )
    smoothing: float | None = Field(
        None, gt=0, lt=1, description="SmoothQuant's strength: outliers of activations move into weights; 0.5 is usual"
    )
    bias_correction: bool = Field(False, description="biases absorb what quantization shifts outputs by on average")

    def changes(self) -> dict[str, Any]:
        """As `backends.schemes.changed_scheme` takes them."""
        changes = self.model_dump(exclude={"base"}, exclude_none=True)
        changes["keep_float"] = list(self.keep_float)
        return {name: change for name, change in changes.items() if change}
