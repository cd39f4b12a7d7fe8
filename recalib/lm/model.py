"""Loading a causal language model and its tokenizer from a folder or the Hub."""

import contextlib
import functools
import hashlib
import inspect
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recalib.artifact import sha256
from recalib.errors import ModelError, UsageError
from recalib.fingerprint import Fingerprint
from recalib.lm.blocks import capturing, find_blocks, find_decoder
from recalib.lm.chat import ChatFormat
from recalib.lm.padding import Together, batchable
from recalib.lm.truncation import load_first_blocks, without_weights
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
        """Number of decoder blocks that are loaded."""
        return len(self.blocks)

    @cached_property
    def hidden_size(self) -> int:
        """Width of the residual stream, as the first block gives it for one row of two tokens.

        Raises ModelError if that block does not give one vector for each token.
        """
        shapes: list[torch.Size] = []
        tokens = torch.zeros(1, 2, dtype=torch.long)
        with capturing(self.blocks, (0,), lambda layer, h: shapes.append(h.shape)):
            self.decoder(**self.inputs(tokens, torch.ones_like(tokens)))
        *rows, width = shapes[0]
        if rows != [1, 2]:
            raise ModelError(
                f"{type(self.model).__name__}: its first block returns {[*rows, width]} for one row of two "
                "tokens, not [batch, tokens, hidden]"
            )
        return width

    def inputs(self, ids: Tensor, mask: Tensor) -> dict[str, Any]:
        """Arguments of a pass over prompts [rows, tokens], by the decoder or the model.

        Where a model takes positions, they are those that `generate` gives it: some count from elsewhere
        when they are left to themselves, and a gate must read what generation shows it.
        """
        arguments = {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device), "use_cache": False}
        takes = (inspect.signature(part.forward).parameters for part in (self.model, self.decoder))
        if all("position_ids" in parameters for parameters in takes):
            arguments["position_ids"] = (mask.cumsum(-1) - 1).clamp_min(0).to(self.device)
        return arguments

    @cached_property
    def batchable(self) -> Together:
        """What a left-padded batch may hold, found by generating a few tokens; see `lm.padding`."""
        short, long = (self.chat.encode(text).ids for text in ("Hello", "Hello, how do I bake bread?"))
        return batchable(self.model, self.tokenizer.pad_token_id, short, long)

    def left_padded_batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Indices of rows of these lengths, split into batches that `batchable` allows."""
        rows = range(len(lengths))
        if len(rows) == 1 or self.batchable == "any prompts":
            return [list(rows)]
        if self.batchable == "single prompts":
            return [[i] for i in rows]
        return [[i for i in rows if lengths[i] == length] for length in sorted(set(lengths))]

    @cached_property
    def decoder(self) -> Any:
        """The model without its LM head."""
        return find_decoder(self.model)

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
    blocks: int | None = None,
) -> LanguageModel:
    """Load a model from a folder or from the Hub; `organism` is the embedded one.

    `device` auto takes the first accelerator that torch reports (under torchrun and accelerate, the process's own),
    else the CPU. `dtype` auto keeps the
    checkpoint's on an accelerator and takes float32 on the CPU, where half precision is slow. With `blocks`,
    only so many of the first decoder blocks are loaded and no LM head: enough to read activations, not to
    generate.

    Raises ModelError if it cannot be loaded, UsageError for an impossible device or dtype.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = _device(device)
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    if dtype == "auto" and target.type == "cpu":
        dtype = "float32"
    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    with _explained(name):
        tokenizer = AutoTokenizer.from_pretrained(_source(name), **common)
        if blocks is None:
            model = AutoModelForCausalLM.from_pretrained(_source(name), dtype=dtype, **common)
            found = find_blocks(model)
        else:
            model, found = load_first_blocks(_source(name), blocks, dtype, revision, trust_remote_code)
    return wrap(model.to(target), tokenizer, name, found)


def count_blocks(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> int:
    """Number of decoder blocks of a model, whose weights are not loaded. Raises ModelError."""
    with _explained(name):
        return len(find_blocks(without_weights(_source(name), revision, trust_remote_code)))


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Silence transformers, and turn what it raises while loading into ModelError."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        fix = "--model takes a folder with config.json and weights, or a Hub id"
        if "trust_remote_code" in str(error):
            fix = "read the model's code, then pass --trust-remote-code"
        raise ModelError(f"{name}: transformers cannot load it: {reason}", fix=fix) from error


def wrap(model: Any, tokenizer: Any, name: str | None = None, blocks: nn.ModuleList | None = None) -> LanguageModel:
    """A LanguageModel from a model and a tokenizer that are already in memory; `blocks` if they are not all there."""
    model.eval()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        chat=ChatFormat(tokenizer),
        blocks=find_blocks(model) if blocks is None else blocks,
        fingerprint=fingerprint(model, tokenizer, name),
    )


def fingerprint(model: Any, tokenizer: Any, name: str | None) -> Fingerprint:
    """What identifies the model: a local folder by its weights' content, a Hub model by its commit."""
    config = model.config.get_text_config(decoder=True)
    template = tokenizer.chat_template
    return Fingerprint(
        model=name,
        revision=getattr(model.config, "_commit_hash", None),
        weights=_weights_hash(Path(_source(name))) if name else None,
        architecture=type(model).__name__,
        hidden_size=getattr(config, "hidden_size", None),
        num_layers=getattr(config, "num_hidden_layers", None),
        tokenizer=_vocabulary_hash(tokenizer, len(tokenizer)),
        chat_template=_sha256(json.dumps(template)) if template else None,
    )


@functools.lru_cache(maxsize=8)
def _vocabulary_hash(tokenizer: Any, size: int) -> str:
    """Remembered, because steering asks each time and a large vocabulary takes a third of a second."""
    return _sha256(json.dumps(sorted(tokenizer.get_vocab().items())))


def _source(name: str) -> str:
    return str(MODEL_DIR) if name == ORGANISM else name


def _device(name: str) -> torch.device:
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if accelerator is None:
            return torch.device("cpu")
        # torchrun and accelerate start one process a device, and tell each only this
        local = os.environ.get("LOCAL_RANK", "0")
        return torch.device(accelerator.type, int(local) % torch.accelerator.device_count())
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
