"""Problems of the tasks that a suite file declares, which its tables alone do not show. Reads none of their files."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.errors import KeyPath
from harness.suite.parsed import TomlTable, facts_of, strings, subtables
from harness.suite.problems import Problem, shown
from tasks import task_names


def check_similarities(data: TomlTable) -> Iterator[Problem]:
    """Models that are trained on a task which only loads them."""
    names = strings(data.get("tasks"))
    similar = [name for name in names if (facts := facts_of(data, name)) and facts.kind == "similarity"]
    for model, table in subtables(data.get("models")):
        recipe = table.get("recipe")
        if similar and isinstance(recipe, str) and recipe != "load":
            yield (
                ("models", model, "recipe"),
                f"a similarity ({similar[0]}) takes models as they are; take recipe 'load'",
            )


def check_declared_tasks(data: TomlTable) -> Iterator[Problem]:
    """Every problem of the `task` tables."""
    from tasks.declared import COLUMNS, KINDS, SCORED, metrics_of_kind

    named = strings(data.get("tasks"))
    for name, declared in subtables(data.get("task")):
        at: KeyPath = ("task", name)
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
            yield (
                at,
                "the name must start with a small letter or digit and hold only these and '.', '_', '-'; rename it",
            )
        elif name in task_names():
            yield at, "a task of this name exists already; rename it"
        elif named and name not in named:
            yield at, "is not named in tasks; add it there, or delete this table"
        kind = declared.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            continue
        if "text" not in declared and kind not in COLUMNS:
            yield (*at, "text"), f"kind '{kind}' needs it; name the column of the text"
        if kind in ("pair", "similarity") and "text_pair" not in declared:
            yield (*at, "text_pair"), f"kind '{kind}' needs a second text; name its column"
        if "pooling" in declared and kind != "similarity":
            yield (*at, "pooling"), "only kind 'similarity' makes vectors of texts; delete this key"
        if kind == "classification" and "text_pair" in declared:
            yield (*at, "kind"), "a classification of two texts is kind 'pair'; change it, or delete text_pair"
        if kind == "token_classification" and "text_pair" in declared:
            yield (*at, "text_pair"), f"kind '{kind}' has one text; delete this key"
        labels = strings(declared.get("labels"))
        if "label" not in declared and kind not in COLUMNS and not (kind == "multi_label" and labels):
            columns = ", or the columns of 0 and 1 in labels" if kind == "multi_label" else ""
            yield (*at, "label"), f"kind '{kind}' needs it; name the column{columns}"
        if "separator" in declared and kind != "multi_label":
            yield (*at, "separator"), "only kind 'multi_label' has several labels in a row; delete this key"
        if labels and kind in SCORED:
            yield (*at, "labels"), f"kind '{kind}' has no classes; delete this key"
        elif len(labels) == 1:
            yield (*at, "labels"), "a classification needs at least two classes; add the others"
        elif len(set(labels)) < len(labels):
            yield (*at, "labels"), "a class is named twice; delete one"
        if "unanswerable" in declared and kind != "question_answering":
            yield (*at, "unanswerable"), "only kind 'question_answering' has answers; delete this key"
        if kind == "question_answering":
            for key in ("text", "text_pair", "label", "labels"):
                if key in declared:
                    yield (*at, key), "the columns are called context, question and answers; delete this key"
        allowed = metrics_of_kind(kind, unanswerable=declared.get("unanswerable") is True)
        for index, metric in enumerate(strings(declared.get("metrics"))):
            if metric not in allowed:
                known = ", ".join(allowed)
                yield (*at, "metrics", index), f"{shown(metric)} is not a metric of kind '{kind}'; choose from {known}"
        if KINDS[kind] == "classification" and "f1" in strings(declared.get("metrics")) and len(labels) != 2:
            yield (*at, "metrics"), "'f1' is that of the second of two classes; name both in labels, or take 'macro_f1'"
