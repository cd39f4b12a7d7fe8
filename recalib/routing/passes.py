"""What a call of the model says about the tokens that it is given."""

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pass:
    """One forward pass: the tokens in it, and how many came before.

    `ids` [rows, tokens] is None where the model is given embeddings. `mask` [rows, tokens] is 1 for tokens
    and 0 for padding, None where the call does not say: then nothing is padded to the right. `past`
    counts the tokens that the cache holds.
    """

    ids: Tensor | None
    mask: Tensor | None
    past: int

    def repeats(self, prompt: "Pass") -> bool:
        """Whether this pass reads a prompt again together with tokens generated since: there is no cache."""
        if self.past or self.ids is None or prompt.ids is None or len(self.ids) != len(prompt.ids):
            return False
        length = prompt.ids.shape[1]
        return self.ids.shape[1] > length and torch.equal(self.ids[:, :length], prompt.ids)

    def last_tokens(self, rows: int, tokens: int, device: torch.device) -> Tensor:
        """Index [rows] of each row's last token that is not padding."""
        if self.mask is None:
            return torch.full((rows,), tokens - 1, device=device)
        index = torch.arange(tokens, device=device)
        return torch.where(self.mask.to(device) != 0, index, -1).amax(1).clamp(min=0)


def read_pass(model: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Pass:
    """The pass that a call of `model` with these arguments is."""
    named = dict(zip(inspect.signature(model.forward).parameters, arguments, strict=False)) | dict(keywords)
    ids, mask = named.get("input_ids"), named.get("attention_mask")
    tokens = (ids if ids is not None else named["inputs_embeds"]).shape[1]
    # masks of other shapes were made for a cache of fixed size, of a prompt padded to the left if at all
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return Pass(ids, None, _cached(named))
    return Pass(ids, mask[:, -tokens:], max(mask.shape[1] - tokens, 0) or _cached(named))


def _cached(named: Mapping[str, Any]) -> int:
    """Tokens in the cache; 1 where it holds a state that does not count them."""
    # the names under which `generate` hands back what the model returned
    caches = (named.get(name) for name in ("past_key_values", "cache_params", "state"))
    cache = next((cache for cache in caches if cache is not None), None)
    if cache is None:
        return 0
    for name in ("get_seq_length", "has_previous_state"):
        with contextlib.suppress(AttributeError, ValueError):  # caches of recurrent states alone do not count
            return int(getattr(cache, name)())
    return 1
