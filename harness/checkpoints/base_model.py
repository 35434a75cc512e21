"""What a recipe starts from: the source's folder, its configuration and its tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.onnx_file import folder_of_onnx
from harness.checkpoints.found import plain_folder
from harness.checkpoints.hub import find_source, one_line
from harness.errors import CheckpointError, SourceUnavailable
from harness.plan.spec import CheckpointSpec, folder_of
from tasks.tokens import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def source_folder(spec: CheckpointSpec, cache: Path) -> Path | None:
    """The folder of the weights to start from: the parent checkpoint's, or the source's. None for random weights.

    Raises SourceUnavailable, CheckpointError.
    """
    if spec.parent:
        return folder_of(spec.parent, cache)
    if spec.source == "scratch":
        return None
    if spec.source.startswith("onnx:"):
        file = Path(spec.source.removeprefix("onnx:"))
        folder = folder_of_onnx(file) if file.is_file() else None
        if folder is None:
            raise SourceUnavailable(f"{spec.source}: the file or its config.json is gone", "copy them back")
        return folder
    revision = (spec.identity or {}).get("revision")  # "unresolved": the hub did not answer when this was planned
    found = find_source(spec.source, None if revision == "unresolved" else revision)
    return plain_folder(found, cache, f"{spec.model}: {spec.source}")


def load_config(spec: CheckpointSpec, source: Path | None) -> Any:
    """transformers' configuration of the model in `source`, or of random weights where that is None.

    Raises CheckpointError where the configuration cannot be read, has too few positions for the shape, or where random
    weights are to be fine-tuned on real data.
    """
    from backends import BackendError
    from backends.checkpoint import longest_sequence, read_family
    from backends.families import DEFAULT_FAMILY, get_family
    from backends.torch_models import config_class, new_config

    if source is None:
        from tasks.sample import sample_vocabulary

        if spec.recipe == "finetune" and spec.data.kind != "sample":
            raise CheckpointError(
                f"{spec.model}: source 'scratch' has the sample's vocabulary, which holds few words of real data;"
                " start from a pretrained encoder (hub:ID, package:NAME/FOLDER or a folder)"
            )
        family = get_family(DEFAULT_FAMILY)
        vocabulary, positions = len(sample_vocabulary()), max(512, spec.shape.max_length)
        sizes = {"vocab_size": vocabulary, "max_position_embeddings": positions, **(spec.architecture or {})}
        config = new_config(family, sizes)
    else:
        try:
            family = read_family(source)
            config = config_class(family).from_pretrained(source, trust_remote_code=False, local_files_only=True)
            positions = longest_sequence(config.to_dict(), family)
        except BackendError as error:
            reason = str(error).removeprefix(f"{source / 'config.json'}: ")
            raise CheckpointError(f"{spec.model}: {spec.root.source}: config.json {reason}") from None
        except Exception as error:  # transformers raises many kinds of exception for a value of a wrong type
            raise CheckpointError(
                f"{spec.model}: {spec.root.source}: config.json cannot be read ({one_line(error)}); save the model again"
            ) from None
    if spec.shape.max_length > positions:
        raise CheckpointError(
            f"{spec.model}: shape.max_length {spec.shape.max_length} is more than the {positions} positions of"
            f" {spec.root.source}; lower shape.max_length to {positions} or name another source"
        )
    return config


def write_tokenizer(spec: CheckpointSpec, source: Path | None, config: Any, output: Path) -> Tokenizer:
    """Write the files of the fast tokenizer to the folder `output` and return it. Later processes then need no
    transformers.

    Raises CheckpointError where there is no fast tokenizer, or where it has more tokens than the model.
    """
    if source is None:
        from tasks.sample import TOKENIZER_CONFIG, sample_tokenizer

        sample_tokenizer().save(str(output / "tokenizer.json"))
        (output / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    else:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, config=config, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # the tokenizers library raises plain Exception for a broken file
            raise CheckpointError(
                f"{spec.model}: {spec.root.source}: tokenizer.json or vocab.txt cannot be read ({one_line(error)});"
                " save the tokenizer again"
            ) from None
        tokenizer.save_pretrained(output)
    if not (output / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{spec.model}: {spec.root.source}: there is no fast tokenizer; save one as tokenizer.json"
        )
    fast = load_tokenizer(output)
    if fast.get_vocab_size() > config.vocab_size:
        raise CheckpointError(
            f"{spec.model}: {spec.root.source}: the tokenizer has {fast.get_vocab_size():,} tokens, but the model only"
            f" {config.vocab_size:,}; use the model's own tokenizer"
        )
    return fast


def copy_model(source: Path, output: Path, labels: Sequence[str] = ()) -> None:
    """Copy the weights unchanged, and write a configuration that transformers' Auto classes can read. labels: names of the
    classes that replace the model's own."""
    shutil.copyfile(source / "model.safetensors", output / "model.safetensors")
    write_config(source, output, labels)


def copy_onnx(file: Path, output: Path) -> None:
    """Copy an ONNX file unchanged, and the files that hold its tensors: the file names them, so that they keep their names."""
    from backends.onnx_file import FILE, data_files

    shutil.copyfile(file, output / FILE)
    for data in data_files(file):
        shutil.copyfile(data, output / data.name)


def write_config(source: Path, output: Path, labels: Sequence[str] = ()) -> None:
    """The configuration, with other names for the classes where `labels` has some."""
    from backends.checkpoint import read_config

    config = read_config(source)
    if labels:
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
        config["label2id"] = {label: number for number, label in enumerate(labels)}
    (output / "config.json").write_text(json.dumps(config, indent=2))
