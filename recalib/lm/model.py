"""Loading a causal language model and its tokenizer from a folder or the Hub."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recalib.artifact import sha256
from recalib.errors import ModelError, UsageError
from recalib.fingerprint import Fingerprint
from recalib.lm.blocks import find_blocks
from recalib.lm.chat import ChatFormat
from recalib.organism import MODEL_DIR

ORGANISM = "organism"
"""Name of the embedded model, wherever a model is named."""

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class LanguageModel:
    """A causal LM ready to use: in eval mode, on its device, with its blocks and chat format found."""

    model: Any
    tokenizer: Any
    chat: ChatFormat
    blocks: nn.ModuleList
    fingerprint: Fingerprint

    @property
    def num_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return int(self.model.config.get_text_config(decoder=True).hidden_size)

    @property
    def decoder(self) -> Any:
        """The model without its LM head."""
        return self.model.get_decoder()

    @property
    def device(self) -> torch.device:
        """Where input ids go."""
        device: torch.device = self.model.device
        return device

    def require_layer(self, layer: int) -> None:
        """Raise ModelError if the model has no such block."""
        if layer >= self.num_layers:
            raise ModelError(
                f"layer {layer} is needed, but {self.fingerprint.model} has {self.num_layers} "
                f"blocks (0 to {self.num_layers - 1})"
            )


def load(
    name: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a model from a folder or from the Hub; `organism` is the embedded one.

    `device` auto takes the first accelerator that torch reports, else the CPU. `dtype` auto keeps the
    checkpoint's on an accelerator and takes float32 on the CPU, where half precision is slow.

    Raises ModelError if it cannot be loaded, UsageError for an impossible device or dtype.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    target = _device(device)
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if dtype == "auto" and target.type == "cpu":
        dtype = "float32"
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(_source(name), **common)
        model = AutoModelForCausalLM.from_pretrained(_source(name), dtype=dtype, **common)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        fix = "--model takes a folder with config.json and weights, or a Hub id"
        if "trust_remote_code" in str(error):
            fix = "read the model's code, then pass --trust-remote-code"
        raise ModelError(f"{name}: transformers cannot load it: {reason}", fix=fix) from error
    return wrap(model.to(target), tokenizer, name)


def wrap(model: Any, tokenizer: Any, name: str | None = None) -> LanguageModel:
    """A LanguageModel from a model and a tokenizer that are already in memory."""
    model.eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        chat=ChatFormat(tokenizer),
        blocks=find_blocks(model),
        fingerprint=fingerprint(model, tokenizer, name),
    )


def fingerprint(model: Any, tokenizer: Any, name: str | None) -> Fingerprint:
    """What identifies the model: a local folder by its weights' content, a Hub model by its commit."""
    config = model.config.get_text_config(decoder=True)
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    template = tokenizer.chat_template
    return Fingerprint(
        model=name,
        revision=getattr(model.config, "_commit_hash", None),
        weights=_weights_hash(Path(_source(name))) if name else None,
        architecture=type(model).__name__,
        hidden_size=int(config.hidden_size),
        num_layers=int(config.num_hidden_layers),
        tokenizer=_sha256(vocabulary),
        chat_template=_sha256(json.dumps(template)) if template else None,
    )


def _source(name: str) -> str:
    return str(MODEL_DIR) if name == ORGANISM else name


def _device(name: str) -> torch.device:
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: not usable here: {reason}") from error
    return device


def _weights_hash(folder: Path) -> str | None:
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    return _sha256(json.dumps([sha256(file) for file in files])) if files else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
