"""Routing: one forward pass in which a block's output decides each row and is steered by it.

Flagged rows get h + alpha v at the last prompt token and every generated one; the others lose their
component along v at every token (arXiv 2606.01196, section 4). The gate reads the block's output
before it is changed, so no second pass is needed.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recalib.errors import ArtifactError, ModelError, UsageError
from recalib.gate.decision import Decision, decide
from recalib.gate.gate import Gate
from recalib.lm.blocks import hidden_states, with_hidden_states
from recalib.routing.passes import Pass, read_pass

POSITION = "t_post_inst"
"""Where a gate must read to decide and steer in one pass: generation starts there."""


def route(h: Tensor, flagged: Tensor, added: Tensor, direction: Tensor, strength: float) -> Tensor:
    """Steer h [rows, tokens, hidden] along the unit vector v, `direction` [hidden].

    Rows that are `flagged` [rows] become h + strength v where `added` [rows, tokens], the others
    h - (v . h) v everywhere. Computed in float32 or better, whatever the model's precision.
    """
    exact = h.to(torch.promote_types(h.dtype, torch.float32))
    v = direction.to(exact.dtype)
    along = torch.where(flagged[:, None], strength * added, -(exact @ v))
    return (exact + along[..., None] * v).to(h.dtype)


class Router:
    """Decides the prompts of each batch that a model is given, and steers them; see `routing`.

    `languages` has a code, or None, for each prompt; a row without one is told from its own activation.
    A batch may repeat each prompt's row next to itself, for beams and returned sequences. Rows deferred
    are steered as flagged ones where `steer_deferred`, else as passed ones; with `steer` off nothing is
    changed. Every pass of several tokens is taken for a new prompt (or a new turn after a cache), unless
    it repeats the last prompt because there is no cache. Raises ArtifactError for a gate that reads
    elsewhere than at the last prompt token.
    """

    def __init__(
        self,
        gate: Gate,
        languages: Sequence[str | None] | None = None,
        steer: bool = True,
        steer_deferred: bool = True,
    ):
        if gate.meta.position != POSITION:
            raise ArtifactError(
                f"the gate reads {gate.meta.position}, but steering decides at {POSITION}",
                fix=f"recalib fit-gate --position {POSITION}",
            )
        self.gate = gate
        self.languages = None if languages is None else tuple(languages)
        self.steer = steer
        self.steer_deferred = steer_deferred
        self.decisions: tuple[Decision, ...] = ()
        """The last batch's, a prompt each; a row each where `languages` is None."""
        self._direction = torch.tensor(gate.direction, dtype=torch.float32)
        self._flagged = torch.empty(0)
        self._last = torch.empty(0)
        self._prompt: Pass | None = None
        self._now: Pass | None = None

    def before(self, model: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        """Forward pre-hook of the model: note what the pass is."""
        self._now = read_pass(model, arguments, keywords)

    def __call__(self, block: nn.Module, arguments: Any, output: Any) -> Any:
        """Forward hook of the gate's block: its output, steered."""
        h, now, self._now = hidden_states(output), self._now, None
        if now is None:
            raise ModelError("a part of the model was called while steered", fix="call the whole model, unwrapped")
        if not self._continues(now, tokens=h.shape[1]):
            self._decide(h, now)
        if not self.steer:
            return output
        if len(h) != len(self._flagged):
            raise ModelError(f"{len(self._flagged)} rows were decided, but {len(h)} are generated")
        start = torch.zeros_like(self._last) if now.past and now is not self._prompt else self._last
        added = torch.arange(h.shape[1], device=h.device) >= start[:, None]
        return with_hidden_states(output, route(h, self._flagged, added, self._direction, self.gate.meta.strength))

    def _continues(self, now: Pass, tokens: int) -> bool:
        if self._prompt is None:
            return False
        return (now.past > 0 and tokens == 1) or now.repeats(self._prompt)

    def _decide(self, h: Tensor, now: Pass) -> None:
        rows, tokens = h.shape[:2]
        languages = self.languages or (None,) * rows
        if rows % len(languages):
            raise UsageError(f"{len(languages)} languages for a batch of {rows} rows", fix="name one for each prompt")
        repeats = rows // len(languages)
        self._last = now.last_tokens(rows, tokens, h.device)
        read = h.detach()[torch.arange(rows, device=h.device), self._last].float().cpu().numpy()
        # a prompt's rows are equal up to rounding, and must not be parted by it
        self.decisions = tuple(decide(self.gate, read[::repeats], languages))
        steered = [d.flagged or (d.deferred and self.steer_deferred) for d in self.decisions]
        self._flagged = torch.tensor(steered, device=h.device).repeat_interleave(repeats)
        self._direction = self._direction.to(h.device)
        self._prompt = now


@contextlib.contextmanager
def routing(model: nn.Module, block: nn.Module, router: Router) -> Iterator[Router]:
    """Within the context, batches given to `model` are routed at its `block`; afterwards it is as before.

    The model's weights are never touched. What torch.compile made of the model does not know the hooks,
    so that a compiled model runs eagerly meanwhile.
    """
    handles = [
        model.register_forward_pre_hook(router.before, with_kwargs=True),
        block.register_forward_hook(router),
    ]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield router
    finally:
        for handle in handles:
            handle.remove()
