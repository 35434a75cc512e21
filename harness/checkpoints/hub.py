"""From a model's source to a folder with its configuration, tokenizer and weights; all requests to the hub are made here.

Weights in safetensors are preferred, also those of the hub's own conversion; PyTorch's pickled format comes last, and is read by
`harness.checkpoints.unpickle` alone.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from backends import BackendError
from backends.model_files import PATTERNS, PICKLED_PATTERNS, SAFETENSORS, weight_files
from backends.pooling import FILES as POOLING
from harness.errors import CheckpointError, SourceUnavailable
from harness.plan.data import hub_sources
from harness.plan.fit import VOCABULARIES
from harness.plan.sources import LAST_FETCHED, TOKENIZER_FILES, not_installed, package_folder, pinned_revision
from harness.suite.tables import Suite

FILES = ("config.json", SAFETENSORS, *TOKENIZER_FILES, *POOLING)
"""What is downloaded of a repository. Weights in other forms are downloaded only where there is no SAFETENSORS."""

CONVERTER = "SFconvertbot"
"""The hub's own account, which offers a safetensors copy as a pull request to repositories with pickled weights only."""

TIMEOUT = 5.0
"""Seconds that a request to the hub may take while a plan is made."""


def find_source(source: str, revision: str | None = None) -> Path:
    """The folder of a source: `hub:ID`, `package:NAME/FOLDER` or an absolute folder. revision: the commit of a model on the
    hub; default: its `main`.

    Raises SourceUnavailable where this machine cannot get it, and CheckpointError where it is no model in safetensors with a
    tokenizer.
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
    if not (path / "config.json").is_file() or not weight_files(path):
        missing = SAFETENSORS if not weight_files(path) else "config.json"
        raise CheckpointError(f"{source}: there is no {missing}; save the model with transformers' save_pretrained")
    if not any((path / file).is_file() for file in VOCABULARIES):
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
        raise CheckpointError(f"package:{name}: '{folder}' is outside the package; name a folder inside it")
    return path


def _from_hub(name: str, revision: str | None) -> Path:
    path = _download_weights(name, revision)
    with contextlib.suppress(OSError):  # a plan without network reads it, and works without it, too
        refs = path.parent.parent / "refs"
        refs.mkdir(exist_ok=True)
        (refs / LAST_FETCHED).write_text(path.name)
    return path


def _download_weights(name: str, revision: str | None) -> Path:
    """One safetensors file, else several, else the hub's conversion, else pickled weights."""
    path = _download(name, revision, FILES)
    if not _complete(path):
        path = _download(name, revision, (*FILES, *PATTERNS))
    if not _complete(path) and not pinned_revision(name) and (conversion := converted_revision(name)):
        converted = _download(name, conversion, FILES)
        if _complete(converted):
            return converted
    if not _complete(path):
        path = _download(name, revision, (*FILES, *PICKLED_PATTERNS))
    if not _complete(path):
        raise SourceUnavailable(
            f"hub:{name}: has no model.safetensors or pytorch_model.bin",
            "save it with transformers' save_pretrained and give the folder as source",
        )
    return path


def _complete(folder: Path) -> bool:
    try:
        return bool(weight_files(folder))
    except BackendError:  # an index whose files are not here yet
        return False


def _download(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        repository, wanted = name.partition("@")[0], revision or pinned_revision(name)
        return Path(snapshot_download(repository, revision=wanted, allow_patterns=[*patterns], etag_timeout=TIMEOUT))
    except GatedRepoError:
        reason, remedy = "its owner must grant access", "accept its terms on the hub and set HF_TOKEN"
    except RepositoryNotFoundError:
        reason = "the hub has no such model, or you may not read it"
        remedy = "check the id; for a private model set HF_TOKEN"
    except LocalEntryNotFoundError as error:
        cause = error.__cause__
        answer = f" ({one_line(cause)})" if isinstance(cause, HfHubHTTPError) else ""
        reason, remedy = f"the hub does not answer{answer}", "go online, or set HF_ENDPOINT to a mirror"
    except Exception as error:  # exceptions of the client's transport, which change with its major versions
        if isinstance(error, OSError) and error.errno:
            raise  # a full disk: the caller explains it
        reason, remedy = f"the download failed ({one_line(error)})", "try again: finished files are kept"
    raise SourceUnavailable(f"hub:{name}: {reason}", remedy)


def converted_revision(name: str) -> str | None:
    """The revision at which CONVERTER added safetensors to a repository. Where the hub does not answer: one that is in the
    local cache. None where there is none."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        requests = HfApi().get_repo_discussions(name, author=CONVERTER, discussion_type="pull_request")
        return next((str(request.git_reference) for request in requests if "safetensors" in request.title), None)
    except Exception:  # whatever the client raises: the caller then says that safetensors are missing
        refs = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs" / "refs" / "pr"
        return next((f"refs/pr/{ref.name}" for ref in sorted(refs.glob("*"))), None)


def hub_revisions(suite: Suite) -> dict[str, str]:
    """The commit of each of the suite's models on the hub, by source, as far as the hub answers. Commits are part of the
    checkpoints' keys, so this is called before anything is downloaded."""
    revisions = {source: hub_revision(source) for source in hub_sources(suite)}
    return {source: revision for source, revision in revisions.items() if revision}


def hub_revision(source: str) -> str | None:
    """The commit that is downloaded for `hub:ID` or `hub:ID@REVISION`: that of the revision or of `main`, or of the safetensors conversion where `main` has none. None
    where the hub does not answer within 5 s. It also downloads the configuration, since a plan checks the model's sizes."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, hf_hub_download

    name, _, pinned = source.removeprefix("hub:").partition("@")
    try:
        info = HfApi().model_info(name, revision=pinned or None, timeout=TIMEOUT)
        has_weights = any(file.rfilename.endswith(".safetensors") for file in info.siblings or ())
        if not has_weights and not pinned and (conversion := _answer_in_time(lambda: converted_revision(name))):
            with contextlib.suppress(Exception):
                info = HfApi().model_info(name, revision=conversion, timeout=TIMEOUT)
        _answer_in_time(lambda: hf_hub_download(name, "config.json", revision=info.sha))
        return info.sha
    except Exception:  # the download reports what is wrong, and a record keeps that
        return None


def _answer_in_time(request: Callable[[], str | None]) -> str | None:
    """What the request returns within TIMEOUT; None where it takes longer or fails. Some of the client's calls have no time-out
    of their own."""
    answers: list[str | None] = []

    def run() -> None:
        with contextlib.suppress(Exception):
            answers.append(request())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return answers[0] if answers else None


def one_line(error: BaseException | None) -> str:
    """An exception's message on one line, at most 200 characters; its type where it has no message."""
    return " ".join(str(error).split())[:200] or type(error).__name__
