"""The front door: each session sets up what it needs once and calls the command line.

nox -s suite -- squad_int8     run a suite, then render the site
nox -s pick -- MODEL --data FILE     which quantization of a model to ship, measured on a labelled file
nox -s reproduce -- --data DIR     repeat the committed results
nox -s site | docs | tests | rtx | lint | bench | chaos | gpu_day | nightly
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import nox

nox.options.default_venv_backend = "none"  # the sessions share ENVIRONMENT
nox.options.sessions = ["tests"]

HERE = Path(__file__).parent
ENVIRONMENT = HERE / ".nox" / "env"
"""One environment for all sessions, so that its 2.6 GB are installed once."""


def has_gpu() -> bool:
    """An NVIDIA driver answers."""
    tool = shutil.which("nvidia-smi")
    return tool is not None and subprocess.run([tool, "-L"], capture_output=True).returncode == 0


def install(session: nox.Session, *extras: str) -> None:
    """Make ENVIRONMENT, put its programs first, and install the project and these extras there, once: again only when
    pyproject.toml changes or an extra is missing."""
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "installed.json"
    if not python.exists():
        session.run_install(sys.executable, "-m", "virtualenv", "-q", ENVIRONMENT)
    os.environ["PATH"] = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    project = hashlib.sha256((HERE / "pyproject.toml").read_bytes()).hexdigest()
    wanted = {"gpu" if has_gpu() else "cpu", *extras}
    try:
        there = json.loads(stamp.read_text())
    except (OSError, ValueError):
        there = {}
    if there.get("pyproject.toml") == project:
        if wanted <= set(there["extras"]):
            return
        wanted |= set(there["extras"])
    else:
        session.log("installing PyTorch, the engines and the rest, once: some 2.6 GB on disk, a few minutes")
    session.run_install(python, "-m", "pip", "install", "-e", f".[{','.join(sorted(wanted))}]")
    if has_gpu():  # on its own and best-effort: without it only TensorRT's rows are lost
        session.run_install(python, "-m", "pip", "install", "-e", ".[tensorrt]", success_codes=range(256))
    stamp.write_text(json.dumps({"pyproject.toml": project, "extras": sorted(wanted)}))


def run_suite(session: nox.Session, *words: str) -> bool:
    """Whether a suite ends well; what follows runs in either case."""
    try:
        session.run("quantboard", "run", *words)
    except nox.command.CommandFailed:
        return False
    return True


@nox.session
def suite(session: nox.Session) -> None:
    """Run a suite and render the site: nox -s suite -- NAME [options of `quantboard run`]."""
    if not session.posargs:
        session.error("name a suite: nox -s suite -- squad_int8 (suites/ holds them)")
    install(session, "minilm")
    done = run_suite(session, *session.posargs)
    session.run("quantboard", "site", "--if-changed")
    if not done:
        session.error("the suite did not end well; its reasons stand above")


@nox.session
def pick(session: nox.Session) -> None:
    """Which quantization to ship: nox -s pick -- MODEL --data FILE [options of `quantboard pick`]."""
    install(session, "minilm")
    session.run("quantboard", "pick", *session.posargs)


@nox.session
def site(session: nox.Session) -> None:
    """Render results/ to _site/."""
    install(session, "minilm")
    session.run("quantboard", "site", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Write docs/coverage.md, findings.md and reproduce.md and README's result anew from results/, when records were added."""
    install(session, "minilm")
    session.run("python", "-m", "harness.report.coverage")
    session.run("python", "-m", "harness.report.findings")
    session.run("python", "-m", "harness.report.reproduce")


REPRODUCED = (
    "minilm_sts",
    "bert_base_speed",
    "squad_minilm",
    "minilm_glue",
    "minilm_schemes",
    "minilm_qat",
    "minilm_distill",
)
"""The suites of the committed results; none needs the hub. The cheap ones first."""


@nox.session
def reproduce(session: nox.Session) -> None:
    """Repeat the committed results: nox -s reproduce -- --data DIR [options of `quantboard run`]. Days on two cores; the same
    command continues."""
    install(session, "minilm")
    failed = [name for name in REPRODUCED if not run_suite(session, name, *session.posargs)]
    session.run("quantboard", "site", "--if-changed")
    if failed:
        session.error(f"these did not end well; their reasons stand above: {', '.join(failed)}")


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, on all cores; then those that need a GPU, where there is one. A first answer: nox -s tests -- -m "not slow"."""
    install(session, "minilm", "ray", "test")
    # The workers share the cores, so each computes on one thread and waits without keeping a core busy.
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    session.run("pytest", "-n", "auto", "--dist", "loadgroup", *session.posargs, env=threads)
    if has_gpu() and not session.posargs:
        session.run("pytest", "-m", "gpu")


@nox.session
def rtx(session: nox.Session) -> None:
    """Compile every exported graph with NVIDIA's own parser and builder, TensorRT for RTX's: no GPU needed. 95 MB, beside the
    environment of the tests, so that they are the same with and without it."""
    install(session, "minilm", "test")
    builder = HERE / ".nox" / "rtx"
    if not (builder / "tensorrt_rtx").is_dir():
        session.run_install("python", "-m", "pip", "install", "--target", builder, "tensorrt-rtx>=1.7,<2")
    files = session.posargs or ["tests/backends/test_tensor_rt_builder.py"]
    session.run("pytest", *files, env={"PYTHONPATH": os.pathsep.join([str(builder), str(HERE)])})


@nox.session
def lint(session: nox.Session) -> None:
    """ruff; import-linter, which keeps the wings of harness/ apart; the form of the workflows; mypy strict, with stubs of
    TensorRT's real API."""
    install(session, "minilm", "ray", "test", "lint")  # what the tests need as well: one installation serves both
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-logo")
    workflows = sorted(map(str, (HERE / ".github" / "workflows").glob("*.yml")))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    if not (HERE / "stubs" / "tensorrt").is_dir():
        session.run("bash", "tests/tensorrt_stubs.sh", "stubs", external=True)
    session.run("mypy", env={"MYPYPATH": "stubs"})


@nox.session
def bench(session: nox.Session) -> None:
    """Engines in pairs, interleaved in one run (pytest-benchmark); coverage of intervals; trials of what the measurements
    promise, in full with `-- -k "trials or disturbed or loadgen or test_server" --trials 200` (hours); `-- -k peers`: our rows
    and other tools', which get an environment of their own (2 GB)."""
    install(session, "minilm", "test")
    environment = {"QUANTBOARD_PEERS_PYTHON": str(peers(session))} if "peers" in session.posargs else {}
    session.run("pytest", "tests/bench", "--override-ini=addopts=", "-s", *session.posargs, env=environment)


def peers(session: nox.Session) -> Path:
    """The Python of an environment with the tools that we are compared with: optimum wants an older transformers than ours."""
    python = HERE / ".nox" / "peers" / "bin" / "python"
    if not (stamp := HERE / ".nox" / "peers" / "installed").exists():
        session.run(sys.executable, "-m", "virtualenv", "-q", python.parents[1])
        wanted = ("torch>=2.11,<2.14", "openvino>=2026.4,<2027", "nncf>=3.4", "optimum-onnx[onnxruntime]>=0.1")
        session.run(python, "-m", "pip", "install", *wanted, external=True)
        stamp.touch()
    return python


@nox.session
def chaos(session: nox.Session) -> None:
    """Kills, flipped bits, full disks, faulty engines, two runs at once, and fuzzers; prints two tables. In full, hours:
    `nox -s chaos -- --times 50 --minutes 10 --done chaos.jsonl`, which goes on where it was stopped, also in parts
    (`--only "full disk"`); a sign of life: `-- --short`."""
    install(session, "minilm", "test")
    session.run("python", "-m", "tests.chaos", *session.posargs)


@nox.session
def gpu_day(session: nox.Session) -> None:
    """What a borrowed GPU should give first, in 12 minutes: its tests, BERT-base's size on every engine, SQuAD, QAT. The records
    are for the board: nox -s gpu_day -- --data DIR"""
    install(session, "minilm", "test")
    session.run("python", "-m", "tests.gpu_day", *session.posargs)


@nox.session
def nightly(session: nox.Session) -> None:
    """What nightly.toml asks for: check the machine, measure every suite on real data again, compare with the last good night,
    render the site. Ends with an error if a suite failed or the night is worse."""
    install(session, "minilm")
    night = tomllib.loads((HERE / "nightly.toml").read_text())
    if night["require"]:
        session.run("quantboard", "doctor", "--require", ",".join(night["require"]))
    wrong = []
    for name in night["suites"] or sorted(path.stem for path in (HERE / "suites").glob("*.toml")):
        if name != "sample" or night["suites"]:
            data = [] if "--data" in session.posargs else ["--data", night["data"]]
            if not run_suite(session, name, "--remeasure", *data, *session.posargs):
                wrong.append(f"suite {name} has failed cells")
    if not gate_passes(session, night):
        wrong.append("the night is worse than the reference")
    session.run("quantboard", "site")
    if wrong:
        session.error("; ".join(wrong))


def gate_passes(session: nox.Session, night: dict[str, Any]) -> bool:
    """Whether the night is not worse. True where there is no reference yet. On GitHub the comparison goes to the summary."""
    known = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "-q", "--verify", night["against"]], capture_output=True
    )
    if known.returncode and not Path(night["against"]).is_dir():
        session.log(
            f"no {night['against']} yet: nothing to compare with; `git tag {night['against']}` after a good night"
        )
        return True
    limits = ["--max-slowdown", night["max_slowdown"], "--max-loss", str(night["max_loss"])]
    command = ["quantboard", "gate", "--against", night["against"], *limits, "--markdown"]
    with NamedTemporaryFile("w+") as file:
        try:
            session.run(*command, stdout=file)
        except nox.command.CommandFailed:
            passed = False
        else:
            passed = True
        file.seek(0)
        text = file.read()
    print(text)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a") as page:
            page.write(text)
    return passed
