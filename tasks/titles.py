"""What pages call our tasks and metrics."""

from __future__ import annotations

_TITLES = {
    "squad_v1": "SQuAD v1.1",
    "squad_v2": "SQuAD v2.0",
    "glue/cola": "CoLA",
    "glue/sst2": "SST-2",
    "glue/mrpc": "MRPC",
    "glue/stsb": "STS-B",
    "glue/qqp": "QQP",
    "glue/mnli": "MNLI",
    "glue/qnli": "QNLI",
    "glue/rte": "RTE",
    "sts_b": "STS-B, cosine",
}
_METRICS = {
    "f1": "F1",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "exact_match": "exact match",
    "matthews_correlation": "Matthews",
    "spearman": "Spearman",
    "pearson": "Pearson",
}


def task_title(name: str) -> str:
    """A task of one's own is called what its suite calls it."""
    return _TITLES.get(name, name)


def metric_title(name: str) -> str:
    return _METRICS.get(name, name.replace("_", " "))


def task_order(name: str) -> int:
    """Its place on pages; tasks of one's own come after ours."""
    return list(_TITLES).index(name) if name in _TITLES else len(_TITLES)
