"""Left padding: making it, and finding out what a model minds about it."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask [rows, longest row] of rows that all end at the last token."""
    width = max(map(len, rows))
    ids = torch.tensor([[*([pad] * (width - len(row))), *row] for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def tolerance(dtype: torch.dtype) -> float:
    """Largest difference that rounding explains, in standard deviations: .0007 in float32, .18 in bfloat16.

    Rounding errors pile up over the blocks and tip the choice of experts: half of the digits survive. What
    padding or a cache breaks differs by .1 and more.
    """
    return float(2 * torch.finfo(dtype).eps ** 0.5)


Together = Literal["any prompts", "prompts of one length", "single prompts"]
"""What a left-padded batch may hold."""


def batchable(model: Any, pad: int, short: Sequence[int], long: Sequence[int]) -> Together:
    """What may be in a batch without changing what `generate` makes of the row `short`, against alone.

    Padding changes it in models that count positions from the first column (BART's and Whisper's decoders),
    and in recurrent ones that read it; batches as such in RWKV with its cache. Two tokens are generated: some
    types go wrong only after the prompt.
    """
    alone = _logits(model, pad, [short])
    batches: dict[Together, list[Sequence[int]]] = {
        "any prompts": [short, long],
        "prompts of one length": [short, short],
    }
    for together, rows in batches.items():
        difference = (_logits(model, pad, rows) - alone).square().mean().sqrt() / alone.std()
        if difference <= tolerance(model.dtype):
            return together
    return "single prompts"


def _logits(model: Any, pad: int, rows: Sequence[Sequence[int]]) -> Tensor:
    """Logits [2, vocabulary] of the first row's two generated tokens."""
    ids, mask = left_padded(rows, pad, model.device)
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=2,
            min_new_tokens=2,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=pad,
        )
    return torch.stack([step[0] for step in output.logits]).float()
