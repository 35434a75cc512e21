"""Accuracy and its intervals, from the stored per-example scores."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from statsmodels.stats.proportion import proportion_confint

from tests.recompute.bootstrap import check_bootstrap, resampled
from tests.recompute.tally import Array, Record, Tally

KNOWN = {"exact_match", "f1", "accuracy", "matthews_correlation", "pearson", "spearman"}


def columns(accuracy: Record, folder: Path) -> dict[str, Array]:
    """Columns of the split's per-example scores, one row an example."""
    prefix = accuracy["split"] + "/"
    with np.load(folder / accuracy["scores_file"], allow_pickle=False) as file:
        return {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}


def value_of(metric: str, scores: dict[str, Array]) -> float:
    """A metric in percent."""
    if metric in scores:  # SQuAD's exact match and F1 of each question
        return float(100 * scores[metric].mean())
    label, predicted = scores["label"], scores["predicted"]
    if metric in ("pearson", "spearman"):
        if np.ptp(label) == 0 or np.ptp(predicted) == 0:
            return 0.0
        correlate = stats.pearsonr if metric == "pearson" else stats.spearmanr
        return float(100 * correlate(label, predicted).statistic)
    scorers: dict[str, Callable[..., float]] = {
        "accuracy": accuracy_score,
        "f1": lambda a, b: f1_score(a, b, zero_division=0.0),
        "matthews_correlation": matthews_corrcoef,
    }
    return float(100 * scorers[metric](label, predicted))


def check_accuracy(tally: Tally, record: Record, folder: Path) -> None:
    for accuracy in record["accuracy"]:
        scores = columns(accuracy, folder)
        where = f"{record['record_id']} {accuracy['split']}"
        ids = scores["id"]
        tally.compare("examples of a split", where, accuracy["examples"], len(set(ids.tolist())))
        tally.compare("examples of a split", where, accuracy["whole"], len(ids) == accuracy["examples_of_split"])
        rows = record["data"]["splits"][accuracy["split"]]["rows"]
        tally.compare("examples of a split", where, accuracy["examples_of_split"], rows)
        if "correct" in scores:
            agree = (scores["correct"] == (scores["label"] == scores["predicted"])).mean()
            tally.compare("per-example scores", where, 1.0, float(agree))
        if "exact_match" in scores:
            possible = (
                np.isin(scores["exact_match"], (0, 1)) & (scores["f1"] >= scores["exact_match"]) & (scores["f1"] <= 1)
            )
            tally.compare("per-example scores", where, 1.0, float(possible.mean()))
        for metric, figure in accuracy["metrics"].items():
            check_metric(tally, f"{where} {metric}", metric, figure, scores)


def check_metric(tally: Tally, where: str, metric: str, figure: Record, scores: dict[str, Array]) -> None:
    if metric not in KNOWN:
        tally.fail("accuracy metrics", where, f"no recomputation of {metric!r}")
        return
    tally.compare("accuracy metrics", where, figure["value"], value_of(metric, scores))
    method = figure["method"]
    if match := re.fullmatch(r"Wilson's score interval of a share of (\d+) independent examples", method):
        right, n = int(scores["correct"].sum()), len(scores["correct"])
        ends = proportion_confint(right, n, 0.05, "wilson")
        for end, ours in zip(("low", "high"), ends, strict=True):
            tally.compare("Wilson ends of accuracy", where, figure[end], 100 * ours)
        tally.compare("units of an interval", where, int(match[1]), n)
    elif match := re.fullmatch(
        r"expanded percentile bootstrap over (\d+) (examples|articles), (\d+) resamples", method
    ):
        units = len(np.unique(scores["group"])) if match[2] == "articles" else len(scores["id"])
        tally.compare("units of an interval", where, int(match[1]), units)
        draws, effective = resampled(metric, scores)
        check_bootstrap(tally, where, figure, draws, effective, int(match[3]))
    else:
        tally.fail("accuracy metrics", where, f"no recomputation of an interval by {method!r}")
