"""Change points on made-up nights whose changes are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.measure.change_points import change_points, deviation


def test_quiet_series_show_none_and_a_lasting_loss_of_five_percent_is_found_on_its_night() -> None:
    rng = np.random.default_rng(0)
    false = found = 0
    for _ in range(200):
        quiet = rng.normal(0, 0.013, (5, 30))
        noise = deviation(quiet.tolist())
        false += any(change_points(values, noise) for values in quiet.tolist())
        slow = quiet[0].copy()
        slow[20:] += math.log(0.95)
        found += any(abs(place - 20) <= 1 for place in change_points(slow.tolist(), noise))
    assert false <= 3 * 5 and found >= 180  # about one series of a hundred; there are 1,000


def test_a_slow_drift_is_seen_as_steps() -> None:
    rng = np.random.default_rng(1)
    drift = rng.normal(0, 0.005, 60) - 0.003 * np.arange(60)
    assert len(change_points(drift.tolist(), 0.005)) >= 2


def test_one_night_off_is_no_level() -> None:
    values = [0.0, 0.001, -0.001, 0.0, 0.002, -0.08, 0.0, 0.001, -0.002, 0.0]
    assert change_points(values, 0.002) == []


def test_the_deviation_is_that_of_quiet_nights() -> None:
    rng = np.random.default_rng(2)
    series = rng.normal(0, 0.01, (20, 50))
    series[:, 25:] -= 0.5  # touches one difference of 49
    assert deviation(series.tolist()) == pytest.approx(0.01, rel=0.1)
    assert deviation([[0.0] * 10, [0.0] * 10]) is None  # 18 differences
    assert change_points([0.0] * 20, 0.0) == [] and change_points([0.0, 1.0] * 2, 0.1) == []


def test_the_partition_is_that_of_pelt_in_ruptures() -> None:
    ruptures = pytest.importorskip("ruptures")
    rng = np.random.default_rng(3)
    changed = 0
    for count in [6, 7, 8, 12, 20, 40, 90] * 30:
        values = rng.normal(0, 1, count)
        for _ in range(rng.integers(0, 4)):
            values[rng.integers(0, count) :] += rng.choice([-6, -3, 3, 5, 8])
        middle = np.median([values[:-2], values[1:-1], values[2:]], axis=0)
        smooth = np.concatenate([middle[:1], middle, middle[-1:]]).reshape(-1, 1)
        pelt = ruptures.KernelCPD(kernel="linear", min_size=2).fit(smooth).predict(pen=10 + math.log(count))
        assert change_points(values.tolist(), 1.0) == pelt[:-1]
        changed += len(pelt) > 1
    assert changed > 50
