"""A checkpoint as a model of transformers in PyTorch, and the parts of such a model by canonical name."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.architecture import Architecture, Encoder, Head
from backends.base import BackendError
from backends.checkpoint import HEADS, architecture_of, read_family
from backends.families import FAMILIES, Family, Part, get_family
from backends.pooling import pool

if TYPE_CHECKING:
    import torch
    from torch import nn

AUTO_CLASSES: Mapping[Part, str] = {
    "question_answering": "AutoModelForQuestionAnswering",
    "classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "masked_lm": "AutoModelForMaskedLM",
    "encoder": "AutoModel",
}


def auto_class(part: Part) -> Any:
    """transformers' Auto class of a part: its `from_config` and `from_pretrained` make a model of any family."""
    import transformers

    return getattr(transformers, AUTO_CLASSES[part])


def part_of(head: Head) -> Part:
    """The model that has that head: for an embedding the encoder alone, whose states are pooled afterwards."""
    return "encoder" if head == "embedding" else head


def config_class(family: Family) -> Any:
    """transformers' class of a family's configurations."""
    from transformers import AutoConfig

    return type(AutoConfig.for_model(family.model_type))


def new_config(family: Family, sizes: Mapping[str, Any]) -> Any:
    """A configuration of a family with these sizes, by canonical name."""
    return config_class(family)(**{family.key(name): value for name, value in sizes.items()})


def family_of(model: nn.Module) -> Family:
    """The family of a model of transformers. Raises BackendError for one that is not known here."""
    config: Any = model.config
    return get_family(config.model_type)


def read_model_architecture(model: nn.Module) -> Architecture:
    """The architecture of a model with a task's head, from its class and its configuration. That of an encoder alone says of no
    pooling."""
    family, config = family_of(model), model.config
    name = type(model).__name__
    head: Head = next((head for head in HEADS if name == family.class_of(part_of(head))), "classification")
    return architecture_of(config.to_dict(), family, head)  # type: ignore[operator, union-attr]


def take_all_inputs(model: nn.Module) -> None:
    """Let a model be called with `token_type_ids` where its family has no use for them: they are then left out."""
    config: Any = model.config
    if config.model_type in FAMILIES:
        family = family_of(model)
        types = config.to_dict().get(family.key("type_vocab_size"), family.defaults.get("type_vocab_size")) or 0
    else:
        takes = "token_type_ids" in signature(model.forward).parameters
        types = (config.to_dict().get("type_vocab_size", 2) or 0) if takes else 0
    if types > 1:
        return
    base: Any = model.base_model
    for module in {model, base}:
        module.register_forward_pre_hook(_without_token_types, with_kwargs=True)


def _without_token_types(_: nn.Module, arguments: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return arguments, {name: value for name, value in keywords.items() if name != "token_type_ids"}


def find_module(model: nn.Module, name: str) -> Any:
    """The module of that canonical name, in a model with a head or in an encoder alone. None where there is none."""
    path = module_path(model, name)
    try:
        return None if path is None else model.get_submodule(path)
    except AttributeError:
        return None


def module_path(model: nn.Module, name: str) -> str | None:
    """The path, in this model, of the module of that canonical name. None where the family has none."""
    family = family_of(model)
    path = family.path(name)
    return path if path is None or hasattr(model, family.prefix) else path.removeprefix(f"{family.prefix}.")


def disable_cudnn_attention() -> None:
    """Do not use cuDNN's attention in this process. PyTorch prefers it for half precision on some GPUs, but it builds a plan for
    each new batch size and length, which costs more than it saves when lengths change from batch to batch."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def load_model(checkpoint: Path, encoder: Encoder) -> torch.nn.Module:
    """The checkpoint's model in float32, in evaluation mode. Raises BackendError unless all its weights are in the folder."""
    family, part, options = read_family(checkpoint), part_of(encoder.head), dict[str, Any]()
    if not family.generic:
        options["attn_implementation"] = "eager" if family.own_attention else "sdpa"
    if part == "encoder":
        options |= family.encoder_arguments
    try:
        model, loading = auto_class(part).from_pretrained(
            checkpoint, dtype="float32", local_files_only=True, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True, **options,
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError) as error:
        raise BackendError(
            f"{checkpoint}: transformers cannot load it ({str(error).splitlines()[0]}); save the model again"
        ) from None
    missing = sorted(loading["missing_keys"])
    unexpected = sorted(key for key in loading["unexpected_keys"] if not family.may_be_unused(key))
    fault = ""
    if missing:
        fault = f"lacks {missing[0]}"
    elif unexpected:
        fault = f"holds {unexpected[0]}, which it does not use"
    elif loading.get("mismatched_keys"):
        fault = "has wrong sizes"
    if fault:
        raise BackendError(
            f"{checkpoint}: the model {fault}: the folder holds another model than config.json describes; save both files from the"
            " same model"
        )
    module: torch.nn.Module = model.eval()
    take_all_inputs(module)
    return module


def try_model(checkpoint: Path, encoder: Encoder, length: int) -> None:
    """Load a model whose family is not known here, and run one sequence of `length` tokens with both token types. Raises
    BackendError."""
    import torch

    model = load_model(checkpoint, encoder)
    ids = torch.zeros((1, length), dtype=torch.int64)
    types = (torch.arange(length) >= length // 2).long()[None]
    try:
        with torch.inference_mode():
            outputs = model(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=types)
            model_logits(outputs, encoder, torch.ones_like(ids))
    except Exception as error:  # whatever code of another's model raises
        why = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:200]}"
        raise BackendError(
            f"{checkpoint}: it does not run on {length} tokens ({why}); lower shape.max_length, or name another model"
        ) from None


def model_logits(outputs: Any, encoder: Encoder, attention_mask: torch.Tensor) -> torch.Tensor:
    """A model's answer as backends give it: logits, those of start and end side by side, or one vector a text."""
    import torch

    if encoder.head == "question_answering":
        return torch.stack((outputs.start_logits, outputs.end_logits), dim=-1)
    logits: torch.Tensor = (
        pool(outputs.last_hidden_state, attention_mask, encoder.pooling) if encoder.pooling else outputs.logits
    )
    return logits


def counted_macs(model: nn.Module, length: int) -> int:
    """Multiply-accumulates of all matrix products for one sequence of `length` tokens, as PyTorch counts them. It misses those of
    its fused attention, which is taken apart for this."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model.requires_grad_(
        False
    )  # the counter asks for the gradient of what modules are called with, DeBERTa's with parameters
    ids = torch.zeros((1, length), dtype=torch.int64, device=next(model.parameters()).device)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=ids)
    return counter.get_total_flops() // 2
