"""Runs a target on random inputs for some seconds, and keeps those that are findings.

`python -m tests.fuzz.hunt TARGET FOLDER --seconds S --seed N` does it in a process of its own, so that an input which ends the
process, or eats its memory, is a finding too: `report` looks at how it ended. FOLDER/current holds the input that is tried.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from tasks import arrow

CORPUS = Path(__file__).parent / "corpus"
MEMORY = 8 << 30
"""Bytes of private memory that the process may take."""


@dataclass
class Report:
    """findings: by what happened, the input."""

    target: str
    cases: int = 0
    seconds: float = 0.0
    findings: dict[str, bytes] = field(default_factory=dict)


def report(target: str, seconds: float, seed: int, folder: Path) -> Report:
    """Hunt in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.hunt",
        target,
        str(folder),
        "--seconds",
        str(seconds),
        "--seed",
        str(seed),
    ]
    environment = {**os.environ, "QUANTBOARD_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    began = time.monotonic()
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds + 300, check=False
        )
        how = f"the process ended with {ended.returncode}: {' '.join(ended.stderr.split())[-300:]}"
    except subprocess.TimeoutExpired:
        ended, how = None, "the process hung"
    found = Report(target, seconds=time.monotonic() - began)
    if ended and ended.returncode == 0:
        content = json.loads(ended.stdout.splitlines()[-1])
        found.cases = content["cases"]
        found.findings = {what: bytes.fromhex(data) for what, data in content["findings"].items()}
    else:
        current = folder / "current"
        found.findings[how] = current.read_bytes() if current.exists() else b""
    return found


def keep(found: Report) -> list[Path]:
    """The findings as files of the corpus, which `tests/fuzz/test_fuzz.py` tries again."""
    kept = []
    for content in found.findings.values():
        path = CORPUS / found.target / f"{hashlib.sha256(content).hexdigest()[:12]}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        kept.append(path)
    return kept


def hunt(target: str, folder: Path, seconds: float, seed: int, most: int = 1 << 60) -> Report:
    """In this process, whose working folder must be `folder`. most: of inputs."""
    import hypothesis
    from hypothesis import strategies as st

    from tests.fuzz.seeds import INPUTS
    from tests.fuzz.targets import TARGETS

    inputs, check = INPUTS[target](), TARGETS[target].check
    TARGETS[target].prepare(folder)
    found, began = Report(target), time.monotonic()

    def one(draw: st.DataObject) -> None:
        content = draw.draw(inputs)  # always, since hypothesis takes note of what is drawn
        if time.monotonic() - began > seconds or found.cases >= most:
            return
        (folder / "current").write_bytes(content)
        found.cases += 1
        try:
            check(folder, content)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            what = signature(error)
            if what not in found.findings or len(content) < len(found.findings[what]):
                found.findings[what] = content

    settings = hypothesis.settings(
        max_examples=min(most, 200),
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    round_ = 0
    while time.monotonic() - began < seconds and found.cases < most:
        hypothesis.seed(seed * 10_000 + round_)(settings(hypothesis.given(st.data())(one)))()
        round_ += 1
    found.seconds = time.monotonic() - began
    return found


def signature(error: BaseException) -> str:
    """What happened, and where in our code."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame
        for frame in frames
        if "/harness/" in frame.filename or "/tasks/" in frame.filename or "/backends/" in frame.filename
    ]
    place = (ours or frames)[-1]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.hunt")
    parser.add_argument("target")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args(arguments)
    arrow.try_in_child = lambda path: None  # type: ignore[assignment, misc]  # this process is a child itself
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    options.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)
    found = hunt(options.target, options.folder.resolve(), options.seconds, options.seed)
    findings = {what: content.hex() for what, content in found.findings.items()}
    print(json.dumps({"cases": found.cases, "findings": findings}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
