"""The free parts of a record, as far as pages and comparisons read them: other keys may hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Free(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Measure(_Free):
    min_accuracy: float = 0.0
    threads: int | None = None


class _Settings(_Free):
    limit: int | None = Field(None, ge=1)
    ancestor: str | None = None
    measure: _Measure = _Measure()


class _Gpu(_Free):
    name: str


class _Machine(_Free):
    cpu: str | None = None
    cpu_model: str | None = None
    cores: int | None = None
    flags: list[str] | None = None
    gpus: list[_Gpu] | None = None


class _Read(_Free):
    settings: _Settings
    machine: _Machine


def check(settings: Mapping[str, Any], machine: Mapping[str, Any]) -> None:
    """Raises pydantic's ValidationError for what would be read and is not what it should be."""
    _Read.model_validate({"settings": settings, "machine": machine})
