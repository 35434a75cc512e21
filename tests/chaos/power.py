"""Power cuts: the image of a file system, copied while a run writes to it, holds what had reached the disk."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.chaos.house import House, Whole, judge

SIZE = 96 << 20
"""Bytes of the file system."""


def can_mount() -> bool:
    """Root, with a loop device that may be mounted."""
    return os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None and Path("/dev/loop-control").exists()


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop,commit=1", str(image), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def power_cut(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """At a random instant of a run. The whole checkout with cache and results lies on the file system."""
    folder.mkdir()
    image, cut = folder / "disk.img", folder / "cut.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    with mounted(image, folder / "before") as disk:
        house = whole.house.copy(disk / "house", results=False)
        subprocess.run(["sync", "-f", str(disk)], check=True)
        with subprocess.Popen(
            house.command("run", "tiny"),
            cwd=house.folder,
            env=house.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            _wait(process, house, rng, whole.seconds)
            family = list[psutil.Process]()
            with contextlib.suppress(psutil.NoSuchProcess):  # it may have come to its end
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.send_signal(signal.SIGSTOP)
            shutil.copyfile(image, cut)
            for one in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        time.sleep(0.2)
    with mounted(cut, folder / "after") as disk:
        after = House.__new__(House)
        after.folder, after.cache = disk / "house", disk / "house" / "cache"
        after.environment = house.environment | {"QUANTBOARD_CACHE": str(after.cache)}
        return judge(after, whole.wanted, after.run("run", "tiny"))


def _wait(process: subprocess.Popen[bytes], house: House, rng: random.Random, seconds: float) -> None:
    """Until a random instant, or just after the first or the last record is there."""
    until, records = time.monotonic() + rng.uniform(1.0, seconds), rng.choice((1, 2, 99))
    while process.poll() is None and time.monotonic() < until + (60 if records < 99 else 0):
        if sum(file.read_bytes().count(b"\n") for file in house.folder.glob("results/*/*/*.jsonl")) >= records:
            return
        time.sleep(0.002)
