"""Faults one after another on the same checkout, so that few processes start: what the tests run."""

from __future__ import annotations

import random
from pathlib import Path

from tests.chaos.engines import SOUND, judge_engines, run_faulty
from tests.chaos.faults import Fault, at_once, filled, flip_all, kill_export, kill_rescore, noticed
from tests.chaos.house import Whole, judge


def disk_kill_runners(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """The disk is full; with room the same command is killed; then two runs go on at once, and `site` looks on."""
    with filled(whole, folder, rng, checkpoints=True) as (house, outcomes):
        house.killed(rng.uniform(0.5, 0.4 * whole.seconds), "run", "tiny")
        outcomes |= at_once(house, rng)
        return outcomes | judge(house, whole.wanted, house.run("run", "tiny"))


def flips_engines(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """A bit of several artefacts is flipped that a suite reads, some of whose engines fail."""
    house = whole.house.copy(folder, results=False)
    flips = flip_all(house, ["weights", "ONNX file", "tokens", "memory of hashes"], rng)
    faults = ["one row", "exits", "dies in turns"]
    ended = run_faulty(house, faults)
    outcomes = judge_engines(whole, house, ended, faults, {label: label for label in SOUND})
    return outcomes | noticed(house, flips, ended)


SHORT: dict[str, Fault] = {
    "full disk, kill, two runners": disk_kill_runners,
    "kill: export": kill_export,
    "kill: rescore": kill_rescore,
    "bit flips, faulty engines": flips_engines,
}
