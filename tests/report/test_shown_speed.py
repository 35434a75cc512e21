"""Which of a record's speeds tables show."""

from __future__ import annotations

from harness.records.schema import Record
from harness.records.speed_schema import Speed
from harness.report.shown_speed import latencies, latency_of, throughput_of
from harness.report.speed_ratios import rounds_alternate
from tests.records.records import make_record


def interleaved() -> Record:
    record = make_record()
    alone = record.speed[-1]
    both = [
        alone.model_copy(update={"scenario": "interleaved", "load": "real", "batch_size": size}) for size in (1, 16)
    ]
    return record.model_copy(update={"speed": [*record.speed, *both]})


def test_interleaved_figures_come_first() -> None:
    record = interleaved()
    for find, batch_size in ((throughput_of, 16), (latency_of, 1)):
        shown = find(record)
        assert shown and (shown.scenario, shown.batch_size) == ("interleaved", batch_size)


def test_without_them_loadgens_are_shown() -> None:
    record = make_record()
    assert [shown.scenario for find in (throughput_of, latency_of) if (shown := find(record))] == [
        "offline",
        "single_stream",
    ]
    assert throughput_of(record.model_copy(update={"speed": []})) is None


def test_only_the_same_interleaved_rounds_are_paired() -> None:
    """Each of the two lost another one of three rounds: as many are left, but they are not the same."""

    def with_rounds(*started: str) -> tuple[Record, Speed]:
        record = interleaved()
        part = record.speed[-1]
        rounds = [part.rounds[0].model_copy(update={"started": one}) for one in started]
        return record, part.model_copy(update={"rounds": rounds})

    assert rounds_alternate(with_rounds("10:00", "10:02"), with_rounds("10:00", "10:02"))
    assert not rounds_alternate(with_rounds("10:00", "10:02"), with_rounds("10:00", "10:01"))


def test_a_p99_of_few_calls_is_called_what_it_is() -> None:
    single = latency_of(make_record())
    assert single is not None
    assert latencies(single) == ("p50 / p90 / slowest of 64 a round, ms", "10.0 / 12.0 / 15.0")
    many = single.model_copy(
        update={"rounds": [round_.model_copy(update={"queries": 500}) for round_ in single.rounds]}
    )
    assert latencies(many)[0] == "p50 / p90 / p99, ms"
