"""Checks of a suite's [[backends]] entries: names, options, schemes, labels, and the baseline."""

from __future__ import annotations

from collections.abc import Iterator

from backends import Backend, BackendError, backend_names, get_backend
from backends.schemes import get_scheme, scheme_names
from harness.errors import KeyPath, did_you_mean
from harness.suite.parsed import TomlTable, is_integer, table_array
from harness.suite.problems import Problem, shown
from harness.suite.scheme_checks import full_name, known_schemes
from harness.suite.tables import BackendEntry, row_label


def check_backends(data: TomlTable) -> Iterator[Problem]:
    """Problems of the backend entries and of the baseline in a parsed file."""
    entries = table_array(data.get("backends"))
    names = [entry["name"] for _, entry in entries if isinstance(entry.get("name"), str)]
    first_use: dict[str, int] = {}
    labels: dict[str, int] = {}
    for index, entry in entries:
        at: KeyPath = ("backends", index)
        name, label, scheme = (entry.get(key) for key in ("name", "label", "scheme"))
        options = {key: value for key, value in entry.items() if key not in BackendEntry.model_fields}
        backend = _backend(name)
        if backend is None or not isinstance(name, str):
            yield from _unknown_backend(name, options, at)
            continue
        yield from _options(backend, options, at)
        yield from _scheme(data, backend, entry, at)
        content = repr((name, scheme, sorted(options.items(), key=str)))
        if first_use.setdefault(content, index) != index:
            yield at, f"'{name}' with the same scheme and options is listed twice; delete one"
            continue
        row = row_label(
            name, label if isinstance(label, str) else None, scheme if isinstance(scheme, str) else None, names
        )
        if labels.setdefault(row, index) != index:
            yield (*at, "label"), f"another entry already has the label {shown(row)}; set a different one here"
    yield from _baseline(data.get("baseline"), names, list(labels))


def _backend(name: object) -> Backend | None:
    try:
        return get_backend(name) if isinstance(name, str) else None
    except BackendError:
        return None


def _unknown_backend(name: object, options: TomlTable, at: KeyPath) -> Iterator[Problem]:
    if isinstance(name, str):
        yield (*at, "name"), f"unknown backend {shown(name)}{did_you_mean(name, backend_names())}"
    for key in options:  # of an unknown backend, only keys that look like misspelt keys of the table are wrong for sure
        if (hint := did_you_mean(key, BackendEntry.model_fields)).startswith("; did"):
            yield (*at, key), f"unknown key{hint}"


def _options(backend: Backend, options: TomlTable, at: KeyPath) -> Iterator[Problem]:
    for key, value in options.items():
        if key not in backend.options:
            known = ["name", "scheme", "label", *backend.options]
            yield (*at, key), f"unknown key; '{backend.name}' has no such option{did_you_mean(key, known)}"
        elif not _has_type(value, backend.options[key]):
            yield (*at, key), f"must be of type {backend.options[key].__name__}, not {shown(value)}"


def _has_type(value: object, wanted: type) -> bool:
    return type(value) is wanted or (wanted is float and is_integer(value))


def _scheme(data: TomlTable, backend: Backend, entry: TomlTable, at: KeyPath) -> Iterator[Problem]:
    supported = ", ".join(scheme for scheme in scheme_names() if not why_unsupported(backend, scheme))
    at_scheme, scheme = (*at, "scheme"), entry.get("scheme")
    if "scheme" not in entry:
        if backend.quantizes == "static":
            yield at_scheme, f"is missing; '{backend.name}' needs one of {supported}"
    elif backend.quantizes == "no":
        yield at_scheme, f"'{backend.name}' does not quantize; delete this key"
    elif backend.quantizes == "dynamic":
        yield at_scheme, f"'{backend.name}' quantizes dynamically, with the ranges of each batch; delete this key"
    elif isinstance(scheme, str):
        if scheme not in known_schemes(data):
            yield at_scheme, f"unknown scheme {shown(scheme)}{did_you_mean(scheme, known_schemes(data))}"
        elif (full := full_name(data, scheme)) and (why := why_unsupported(backend, full)):
            yield at_scheme, f"{why}; use one of {supported}"


def why_unsupported(backend: Backend, scheme: str) -> str:
    """Why a backend cannot run a scheme; empty where it can."""
    choices = get_scheme(scheme)
    if choices.simulation_only and not backend.simulated:
        return f"'{backend.name}' cannot run '{scheme}', which can only be simulated ({choices.simulation_only})"
    if backend.symmetric_only and not choices.activation_symmetric:
        return f"'{backend.name}' supports symmetric schemes only, and '{scheme}' is asymmetric"
    if getattr(backend, "linears_only", False) and choices.tensors == "op_outputs":
        return f"'{backend.name}' quantizes linear layers only, and '{scheme}' the output of every operator"
    return ""


def _baseline(baseline: object, names: list[str], labels: list[str]) -> Iterator[Problem]:
    if not isinstance(baseline, str) or not names or baseline in labels:
        return
    count = names.count(baseline)
    if not count:
        hint = did_you_mean(baseline, [*labels, *names])
        yield ("baseline",), f"{shown(baseline)} is not one of the backends{hint}"
    elif count > 1:
        yield (
            ("baseline",),
            f"{count} entries of [[backends]] are named {shown(baseline)}; use the label of one: {', '.join(labels)}",
        )
