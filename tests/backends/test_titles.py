"""Every backend of ours has a plain name; others keep theirs."""

from __future__ import annotations

from backends import backend_names
from backends.titles import how_it_quantizes, titles


def test_every_backend_has_a_plain_name() -> None:
    for name in backend_names():
        assert titles(name)[0] != name and "_" not in titles(name)[0], name


def test_what_is_no_longer_known_stands_for_itself() -> None:
    assert titles("engine_of_1999") == ("engine_of_1999", "engine_of_1999")
    assert how_it_quantizes("engine_of_1999") == ""
