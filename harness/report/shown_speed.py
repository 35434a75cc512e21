"""Which of a record's speeds tables show: the one that ranks and speed-ups come from, so that each number has one measurement."""

from __future__ import annotations

from harness.measure import percentiles
from harness.records.schema import Record
from harness.records.speed_schema import Speed


def shown_load(record: Record) -> str:
    """The load whose speeds tables show: `real`, or `fixed` where no other was measured."""
    loads = {part.load for part in record.speed}
    return "fixed" if loads == {"fixed"} else "real"


def throughput_of(record: Record, load: str | None = None) -> Speed | None:
    """The speed whose samples a second tables show: interleaved at the largest batch, else offline. load: default: `shown_load`."""
    load = load or shown_load(record)
    return _speed_of(record, "interleaved", load, largest=True) or _speed_of(record, "offline", load, largest=True)


def latency_of(record: Record, load: str | None = None) -> Speed | None:
    """The speed whose latencies tables show: interleaved at batch 1, else single stream. load: default: `shown_load`."""
    load = load or shown_load(record)
    return _speed_of(record, "interleaved", load, largest=False) or _speed_of(
        record, "single_stream", load, largest=False
    )


def latencies(speed: Speed) -> tuple[str, str]:
    """(what they are, their milliseconds): p50, p90 and p99, which of few queries is called what it is."""
    figures = (("p50", speed.p50_ms), ("p90", speed.p90_ms), ("p99", speed.p99_ms))
    names = [
        percentiles.in_words(speed, f"{name}_ms") if percentiles.is_maximum(speed, f"{name}_ms") else name
        for name, figure in figures
        if figure
    ]
    return f"{' / '.join(names)}, ms", " / ".join(f"{figure.value:.1f}" for _, figure in figures if figure)


def _speed_of(record: Record, scenario: str, load: str, *, largest: bool) -> Speed | None:
    parts = [part for part in record.speed if (part.scenario, part.load) == (scenario, load)]
    return max(parts, key=lambda part: part.batch_size if largest else -part.batch_size, default=None)
