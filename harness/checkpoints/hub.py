"""From a model's source to a folder with its configuration, tokenizer and weights. Weights are safetensors or nothing: the hub's
pickled files are never fetched."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from harness.errors import CheckpointError, SourceUnavailable
from harness.plan.data import hub_sources
from harness.plan.sources import LAST_FETCHED, not_installed, package_folder
from harness.suite.tables import Suite

TOKENIZERS = ("tokenizer.json", "vocab.txt")


FILES = ("config.json", "model.safetensors", *TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json")


CONVERTER = "SFconvertbot"
"""The hub's own account that offers safetensors, as a pull request, to repositories that hold pickled weights only."""


def find_source(source: str, revision: str | None = None) -> Path:
    """The folder of `hub:ID` (at the commit `revision`, else where its `main` stands), `package:NAME/FOLDER` or an absolute
    folder.

    Raises SourceUnavailable when it cannot be had here, CheckpointError when it holds no model that we can read.
    """
    kind, _, name = source.partition(":")
    if kind == "hub":
        path = _from_hub(name, revision)
    elif kind == "package":
        path = _from_package(name)
    else:
        path = Path(source)
    if not path.is_dir():
        raise SourceUnavailable(f"{source}: there is no such folder", "give a folder of a Hugging Face model")
    for file in ("config.json", "model.safetensors"):
        if not (path / file).is_file():
            raise CheckpointError(
                f"{source}: there is no {file}; save the model with transformers' save_pretrained, in one safetensors file"
            )
    if not any((path / file).is_file() for file in TOKENIZERS):
        raise CheckpointError(f"{source}: there is no tokenizer.json or vocab.txt; save the tokenizer beside the model")
    return path


def _from_package(name: str) -> Path:
    """A folder inside an installed package, which is not imported."""
    package, _, folder = name.partition("/")
    installed = package_folder(package)
    if installed is None:
        raise SourceUnavailable(*not_installed(f"package:{name}", package))
    root = installed.resolve()
    path = (root / folder).resolve()
    if not path.is_relative_to(root):
        raise CheckpointError(f"package:{name}: '{folder}' leaves the package")
    return path


def _from_hub(name: str, revision: str | None) -> Path:
    path = _weights_from_hub(name, revision)
    with contextlib.suppress(OSError):  # without it a plan without a network asks for the hub
        refs = path.parent.parent / "refs"
        refs.mkdir(exist_ok=True)
        (refs / LAST_FETCHED).write_text(path.name)
    return path


def _weights_from_hub(name: str, revision: str | None) -> Path:
    path = _download(name, revision)
    if not (path / "model.safetensors").is_file() and (offer := conversion(name)):
        converted = _download(name, offer)
        if (converted / "model.safetensors").is_file():
            return converted
    if not (path / "model.safetensors").is_file():
        raise SourceUnavailable(
            f"hub:{name}: has no model.safetensors, and pickled weights are not loaded",
            "convert it (https://huggingface.co/spaces/safetensors/convert) or save it with transformers' save_pretrained"
            " and give the folder as source",
        )
    return path


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*FILES], etag_timeout=5))
    except GatedRepoError:
        reason, remedy = "its owner must grant access", "accept its terms on the hub and set HF_TOKEN"
    except RepositoryNotFoundError:
        reason, remedy = "the hub has no such model, or not for you", "check the id; for a private one set HF_TOKEN"
    except LocalEntryNotFoundError as error:
        cause = error.__cause__
        told = f" ({one_line(cause)})" if isinstance(cause, HfHubHTTPError) else ""
        reason, remedy = f"the hub does not answer{told}", "go online, or set HF_ENDPOINT to a mirror"
    except Exception as error:  # the client's transport has its own exceptions, others with each of its major versions
        if isinstance(error, OSError) and error.errno:
            raise  # the disk, which the caller knows to explain
        reason, remedy = f"the download failed ({one_line(error)})", "try again: what has arrived is kept"
    raise SourceUnavailable(f"hub:{name}: {reason}", remedy)


def conversion(name: str) -> str | None:
    """The revision at which the hub's own bot added safetensors; without an answer, one that is already in the local cache."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        offers = HfApi().get_repo_discussions(name, author=CONVERTER, discussion_type="pull_request")
        return next((str(offer.git_reference) for offer in offers if "safetensors" in offer.title), None)
    except Exception:  # as above; the caller says what is missing
        refs = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs" / "refs" / "pr"
        return next((f"refs/pr/{ref.name}" for ref in sorted(refs.glob("*"))), None)


def one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def hub_revision(source: str) -> str | None:
    """The commit whose files are taken of `hub:ID`: that of `main`, or, where it has no safetensors, of the hub's own offer of
    some; None when the hub does not say within 5 s. Uses the network, also for the configuration, whose sizes a plan checks
    before anything is trained."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, hf_hub_download

    name = source.removeprefix("hub:")
    try:
        found = HfApi().model_info(name, timeout=5)
        has = any(one.rfilename == "model.safetensors" for one in found.siblings or ())
        if not has and (offer := _within(5, lambda: conversion(name))):
            with contextlib.suppress(Exception):
                found = HfApi().model_info(name, revision=offer, timeout=5)
        _within(5, lambda: hf_hub_download(name, "config.json", revision=found.sha))
        return found.sha
    except Exception:  # its download will say what is wrong, in the words of the record
        return None


def _within(seconds: float, ask: Callable[[], str | None]) -> str | None:
    """What the network answers in that time; None where it does not, or badly. The client has calls without a limit."""
    answers: list[str | None] = []

    def run() -> None:
        with contextlib.suppress(Exception):
            answers.append(ask())

    waiting = threading.Thread(target=run, daemon=True)
    waiting.start()
    waiting.join(seconds)
    return answers[0] if answers else None


def hub_revisions(suite: Suite) -> dict[str, str]:
    """What the hub holds of the suite's models now, asked before anything is downloaded: it is part of their keys."""
    found = {source: hub_revision(source) for source in hub_sources(suite)}
    return {source: revision for source, revision in found.items() if revision}
