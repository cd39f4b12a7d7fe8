"""Routing: one forward pass in which a block's output decides each row and is steered by it.

Flagged rows get h + alpha v at the last prompt token and every generated one; the others lose their
component along v at every token (arXiv 2606.01196, section 4). The gate reads the block's output
before it is changed, so no second pass is needed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from recalib.gate.decision import Decision, decide
from recalib.gate.gate import Gate
from recalib.lm.blocks import hidden_states, with_hidden_states
from recalib.lm.model import LanguageModel


def add(h: Tensor, direction: Tensor, strength: float) -> Tensor:
    """h + alpha v: refusal steering of h [..., hidden] along the unit vector `direction` [hidden]."""
    return h + (strength * direction).to(h.dtype)


def ablate(h: Tensor, direction: Tensor) -> Tensor:
    """h - (v . h) v: h [..., hidden] without its component along the unit vector `direction`.

    The projection is computed in float32 or better, whatever the model's precision.
    """
    exact = h.to(torch.promote_types(h.dtype, torch.float32))
    v = direction.to(exact.dtype)
    return (exact - (exact @ v)[..., None] * v).to(h.dtype)


def route(h: Tensor, flagged: Tensor, direction: Tensor, strength: float, generated_from: int) -> Tensor:
    """Steer h [rows, tokens, hidden]: `flagged` [rows] decides between `add` and `ablate`.

    Adding starts at token `generated_from`: the last prompt token in a pass over the prompt, 0 in a pass
    over generated tokens only. Ablation covers all tokens.
    """
    steered = h.clone()
    steered[:, generated_from:] = add(h[:, generated_from:], direction, strength)
    return torch.where(flagged[:, None, None], steered, ablate(h, direction))


class Router:
    """The hook on the gate's block, for one batch of prompts that end at the last token (left-padded).

    The first pass after it is made is the one over the prompts, however long they are: there it decides.
    Later passes see generated tokens only, or, without a cache, the whole sequence again. A language None
    is told from the prompt's own activation. Rows deferred are steered as flagged ones where
    `steer_deferred`, else as passed ones.
    """

    def __init__(self, gate: Gate, languages: Sequence[str | None], steer: bool = True, steer_deferred: bool = True):
        self.gate = gate
        self.languages = tuple(languages)
        self.steer = steer
        self.steer_deferred = steer_deferred
        self.decisions: tuple[Decision, ...] = ()
        self._direction = torch.tensor(gate.direction, dtype=torch.float32)
        self._flagged = torch.empty(0)
        self._prompt_length = 0

    def __call__(self, module: Any, inputs: Any, output: Any) -> Any:
        """Forward hook: the block's output, steered."""
        h = hidden_states(output)
        if not self.decisions:
            self._decide(h)
        if not self.steer:
            return output
        # with a cache later passes hold generated tokens only, without one the prompt again
        start = self._prompt_length - 1 if h.shape[1] >= self._prompt_length else 0
        routed = route(h, self._flagged, self._direction, self.gate.meta.strength, start)
        return with_hidden_states(output, routed)

    def _decide(self, h: Tensor) -> None:
        last = h[:, -1].float().cpu().numpy()
        # beams and returned sequences repeat each prompt's row next to itself
        repeats = len(last) // len(self.languages)
        languages = [language for language in self.languages for _ in range(repeats)]
        self.decisions = tuple(decide(self.gate, last, languages))
        steered = [d.flagged or (d.deferred and self.steer_deferred) for d in self.decisions]
        self._flagged = torch.tensor(steered, device=h.device)
        self._direction = self._direction.to(h.device)
        self._prompt_length = h.shape[1]


@contextlib.contextmanager
def routing(lm: LanguageModel, router: Router) -> Iterator[Router]:
    """Within the block, the model's next batch is routed; afterwards it is as before.

    The model's weights are never touched.
    """
    handle = lm.blocks[router.gate.meta.layer].register_forward_hook(router)
    try:
        yield router
    finally:
        handle.remove()
