from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.checkpoints.hub import find_source
from harness.checkpoints.origin import root
from harness.errors import CheckpointError
from harness.plan.spec import CheckpointSpec, folder_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer
from tasks.tokens import load_tokenizer


def copy_model(source: Path, part: Path) -> None:
    """Weights as they are, and a configuration that transformers' Auto classes can read."""
    from backends.bert import read_config

    shutil.copyfile(source / "model.safetensors", part / "model.safetensors")
    (part / "config.json").write_text(json.dumps(read_config(source), indent=2))


def source_of(spec: CheckpointSpec, cache: Path) -> Path | None:
    """The folder of the weights to start from; None for random ones."""
    if spec.parent:
        return folder_of(spec.parent, cache)
    if spec.source == "scratch":
        return None
    revision = (spec.identity or {}).get("revision")  # the plan says "unresolved" where the hub did not answer it
    return find_source(spec.source, None if revision == "unresolved" else revision)


def config_of(spec: CheckpointSpec, source: Path | None) -> Any:
    """transformers' configuration of the model. Raises CheckpointError where it can do nothing for the task or the shape."""
    from transformers import AutoConfig, BertConfig

    from backends import BackendError
    from backends.bert import read_config

    if source is None:
        from tasks.sample import sample_vocabulary

        if spec.recipe == "finetune" and spec.data.kind != "sample":
            raise CheckpointError(
                f"{spec.model}: source 'scratch' has the sample's vocabulary, which knows few words of real data;"
                " fine-tune a pretrained encoder (hub:ID, package:NAME/FOLDER or a folder)"
            )
        sizes: dict[str, Any] = dict(spec.architecture or {})
        config: Any = BertConfig(
            vocab_size=len(sample_vocabulary()), max_position_embeddings=max(512, spec.shape.max_length), **sizes
        )
    else:
        try:
            kind: Any = BertConfig if read_config(source)["model_type"] == "bert" else AutoConfig
            config = kind.from_pretrained(source, trust_remote_code=False, local_files_only=True)
        except BackendError as error:
            why = str(error).removeprefix(f"{source / 'config.json'}: ")
            raise CheckpointError(f"{spec.model}: {root(spec).source}: config.json {why}") from None
        except Exception as error:  # a wrong type in it is an exception of yet another library's own
            raise CheckpointError(
                f"{spec.model}: {root(spec).source}: config.json cannot be read ({_line(error)}); save the model again"
            ) from None
    positions = getattr(config, "max_position_embeddings", spec.shape.max_length)
    if spec.shape.max_length > positions:
        raise CheckpointError(
            f"{spec.model}: shape.max_length {spec.shape.max_length} is more than the {positions} positions of {root(spec).source}"
        )
    return config


def write_tokenizer(spec: CheckpointSpec, source: Path | None, config: Any, part: Path) -> Tokenizer:
    """Write the fast tokenizer's files, so that later processes need no transformers; returns it."""
    if source is None:
        from tasks.sample import sample_tokenizer

        sample_tokenizer().save(str(part / "tokenizer.json"))
        described = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True}
        (part / "tokenizer_config.json").write_text(json.dumps(described))
    else:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, config=config, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # the tokenizers library raises plain Exception for a broken file
            raise CheckpointError(
                f"{spec.model}: {root(spec).source}: tokenizer.json or vocab.txt cannot be read ({_line(error)}); save them again"
            ) from None
        tokenizer.save_pretrained(part)
    if not (part / "tokenizer.json").is_file():
        raise CheckpointError(f"{spec.model}: {root(spec).source}: has no fast tokenizer; save one as tokenizer.json")
    fast = load_tokenizer(part)
    if fast.get_vocab_size() > config.vocab_size:
        raise CheckpointError(
            f"{spec.model}: {root(spec).source}: its tokenizer has {fast.get_vocab_size():,} pieces, its model takes"
            f" {config.vocab_size:,}; give the model's own tokenizer"
        )
    return fast


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
