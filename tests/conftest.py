"""What one test may leave behind in its process is put right before the next; tests of a GPU are a run of their own: `-m gpu`.
All others are of the processor, whatever the machine has."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="PyTorch finds no GPU here, or the run is not one of `-m gpu`"))


@pytest.fixture(autouse=True)
def processor_and_signals() -> Iterator[None]:
    """Training flushes denormal numbers, a state of the processor; a run in the background begins with Ctrl-C ignored."""
    torch.set_flush_denormal(False)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    torch.set_flush_denormal(False)
