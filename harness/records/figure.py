"""What the parts of a record share: strict validation, and figures with intervals."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    """Unknown fields, wrong types, infinities and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Figure(Part):
    """A measured value with its 95% interval."""

    value: float
    low: float | None = None
    high: float | None = None
    method: str = Field("", description="how the interval was made, e.g. 'bootstrap over 48 articles, 10000 resamples'")

    @model_validator(mode="after")
    def _has_both_ends(self) -> Self:
        """Pages print both ends."""
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval needs both low and high")
        return self
