"""Running a model the ways recalib runs it, and keeping what must not depend on the way."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recalib.errors import ModelError
from recalib.gate.gate import Gate, GateMeta
from recalib.gate.readout import Readout, SourceRows
from recalib.gate.threshold import Threshold
from recalib.lm.blocks import hidden_states
from recalib.lm.model import LanguageModel
from recalib.lm.padding import left_padded
from recalib.routing.router import POSITION, Router, routing

STEPS = 3
"""Tokens to generate: the first comes from the prompt's pass, the others from the cache."""

Ids = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Nudge:
    """A vector [hidden] by which steering moves a block's output."""

    layer: int
    vector: Tensor


@dataclass(frozen=True)
class Generated:
    """What generation showed.

    `last` [rows, layers, hidden] is each block's output at the last prompt token, before any nudge to it;
    `logits` [rows, steps, vocabulary] and `tokens` [rows, steps] are what came out; all on the CPU, float32.
    """

    last: Tensor
    logits: Tensor
    tokens: Tensor


def generate(lm: LanguageModel, rows: Ids, nudge: Nudge | None = None, use_cache: bool = True) -> Generated:
    """Greedy generation of STEPS tokens from one left-padded batch, as `recalib steer` does it.

    The nudge is added at the last prompt token and at every generated one.
    """
    ids, mask = left_padded(rows, lm.tokenizer.pad_token_id, lm.device)
    prompt_length = ids.shape[1]
    last: dict[int, Tensor] = {}

    def read(layer: int, h: Tensor) -> None:
        if layer not in last:  # the first pass is the one over the prompt
            last[layer] = h[:, -1].float().cpu()

    with torch.inference_mode(), _reading(lm, read), _nudging(lm, nudge):
        output = lm.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            use_cache=use_cache,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=lm.tokenizer.pad_token_id,
        )
    logits = torch.stack(output.logits, dim=1).float().cpu()
    return Generated(_stacked(last, lm), logits, output.sequences[:, prompt_length:].cpu())


def together(lm: LanguageModel, rows: Ids, nudge: Nudge | None = None) -> Generated:
    """As `generate`, in the batches in which recalib generates these rows."""
    groups = lm.left_padded_batches([len(row) for row in rows])
    order = [i for group in groups for i in group]
    both = joined([generate(lm, [rows[i] for i in group], nudge) for group in groups])
    back = torch.tensor([order.index(i) for i in range(len(rows))])
    return Generated(both.last[back], both.logits[back], both.tokens[back])


def alone(lm: LanguageModel, rows: Ids, nudge: Nudge | None = None, use_cache: bool = True) -> Generated:
    """As `generate`, with each row on its own and so without padding."""
    return joined([generate(lm, [row], nudge, use_cache) for row in rows])


def joined(parts: Sequence[Generated]) -> Generated:
    """Several passes' rows, one after the other."""
    return Generated(*(torch.cat([getattr(part, name) for part in parts]) for name in ("last", "logits", "tokens")))


def states(lm: LanguageModel, ids: Sequence[int]) -> Tensor:
    """Every block's output [layers, tokens, hidden] in one forward pass over a row, float32 on the CPU.

    Raises ModelError if a block does not run exactly once, or gives no state for each token.
    """
    seen: dict[int, list[Tensor]] = {layer: [] for layer in range(lm.num_layers)}
    row = torch.tensor([list(ids)])
    with torch.inference_mode(), _reading(lm, lambda layer, h: seen[layer].append(h.float().cpu())):
        lm.decoder(**lm.inputs(row, torch.ones_like(row)))
    for layer, outputs in seen.items():
        if len(outputs) != 1:
            raise ModelError(f"block {layer} runs {len(outputs)} times in one forward pass, so it has no one output")
        expected = (1, len(ids), lm.hidden_size)
        if outputs[0].shape != expected:
            raise ModelError(
                f"block {layer} returns a tensor of shape {list(outputs[0].shape)}, not "
                f"[batch, tokens, hidden] = {list(expected)}"
            )
    return torch.cat([outputs[0] for outputs in seen.values()])


@contextlib.contextmanager
def _reading(lm: LanguageModel, keep: Callable[[int, Tensor], None]) -> Iterator[None]:
    def reader(layer: int) -> Callable[..., None]:
        return lambda module, inputs, output: keep(layer, hidden_states(output))

    handles = [block.register_forward_hook(reader(layer)) for layer, block in enumerate(lm.blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _nudging(lm: LanguageModel, nudge: Nudge | None) -> contextlib.AbstractContextManager[object]:
    """Steering by the router itself, with a gate that flags everything."""
    if nudge is None:
        return contextlib.nullcontext()
    strength = float(nudge.vector.norm())
    direction = (nudge.vector / strength).numpy()
    nothing = np.zeros((0, 1))
    gate = Gate(
        direction,
        basis=direction[:, None],
        readout=Readout(np.zeros(1), np.ones(1), np.ones(1), 0.0),
        source=SourceRows(nothing, nothing[:, 0]),
        meta=GateMeta(nudge.layer, POSITION, strength, Threshold(-math.inf, "none", 0)),
    )
    return routing(lm.model, lm.blocks[nudge.layer], Router(gate))


def _stacked(by_layer: dict[int, Tensor], lm: LanguageModel) -> Tensor:
    missing = [layer for layer in range(lm.num_layers) if layer not in by_layer]
    if missing:
        raise ModelError(f"blocks {', '.join(map(str, missing))} never ran in generation")
    return torch.stack([by_layer[layer] for layer in range(lm.num_layers)], dim=1)
