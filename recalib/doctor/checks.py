"""The checks, and the passes that they compare."""

import math
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from recalib.doctor import passes
from recalib.doctor.findings import Check, ReadPositions
from recalib.doctor.passes import Nudge
from recalib.extraction import extract
from recalib.lm.model import LanguageModel
from recalib.lm.padding import tolerance


class Patient:
    """A model under examination: passes that several checks look at are run once."""

    def __init__(self, lm: LanguageModel, prompts: tuple[str, ...], seed: int):
        self.lm = lm
        self.prompts = prompts
        self.seed = seed
        self.tolerance = tolerance(lm.model.dtype)

    def checks(self) -> dict[str, Callable[[], Check]]:
        """The checks by name, each of which can run on its own."""
        return {
            "chat format": self.chat_format,
            "block outputs": self.block_outputs,
            "causal": self.causal,
            "steering": self.steering,
            "right padding": self.right_padding,
            "left padding": self.left_padding,
            "batch = singles": self.batch_and_singles,
            "cache on = off": self.cache,
        }

    def chat_format(self) -> Check:
        if len(set(self.ids)) < len(set(self.prompts)):
            return Check("chat format", False, "different prompts have the same tokens: is it the model's tokenizer?")
        found = self.positions
        kind = "the tokenizer's chat template" if found.template else "no chat template: prompts are read as they are"
        read = f"t_inst reads {found.tokens[found.t_inst]!r}, t_post_inst {found.tokens[found.t_post_inst]!r}"
        return Check("chat format", True, f"{kind}; {read}")

    def block_outputs(self) -> Check:
        h = passes.states(self.lm, self.ids[-1])
        if not torch.isfinite(h).all():
            return Check("block outputs", False, f"NaN or infinite in {self.lm.model.dtype}: try --dtype float32")
        shape = f"[batch, tokens, {h.shape[2]}]"
        return Check("block outputs", True, f"{len(h)} blocks, each runs once and returns {shape}")

    def causal(self) -> Check:
        """A token's states do not depend on later tokens, so padding on the right is not seen."""
        whole, part = self.ids[-1], self.ids[-1][: max(1, len(self.ids[-1]) // 2)]
        read = passes.states(self.lm, whole)[:, : len(part)] @ self.directions[:, :, None]
        expected = passes.states(self.lm, part) @ self.directions[:, :, None]
        difference = _difference(read[..., 0].T, expected[..., 0].T)
        return self._equal("causal", difference, "a token's states depend on the tokens after it: no decoder")

    def steering(self) -> Check:
        """A vector added to any block's output changes the logits."""
        plain = self.singles.logits[:1, :1]
        changes = {}
        for layer in sorted({0, self.lm.num_layers // 2, self.lm.num_layers - 1}):
            nudged = passes.alone(self.lm, self.ids[:1], self._nudge(layer)).logits[:, :1]
            changes[layer] = _difference(nudged.flatten(1).T, plain.flatten(1).T)
        deaf = [layer for layer, change in changes.items() if not change > torch.finfo(self.lm.model.dtype).eps]
        blocks = ", ".join(map(str, deaf or changes))
        detail = f"a vector added to block {blocks} {'does not change' if deaf else 'changes'} the logits"
        return Check("steering", not deaf, detail, _finite(min(changes.values())))

    def right_padding(self) -> Check:
        """Extraction, which pads right, reads the same scores in a batch as alone."""
        layers = tuple(range(self.lm.num_layers))
        rows = extract(self.lm, self.prompts, layers, ("t_post_inst",), batch_tokens=10**6)[:, :, 0]
        difference = _difference(self._scores(torch.from_numpy(rows)), self._scores(self.singles.last))
        return self._equal("right padding", difference, "scores of padded prompts are wrong: extract --batch-tokens 1")

    def left_padding(self) -> Check:
        """Generation, which pads left, reads the same scores in a batch as alone."""
        difference = _difference(self._scores(self.batch.last), self._scores(self.singles.last))
        if self.lm.batchable != "any prompts":
            detail = f"batches of different lengths go wrong, so recalib generates {self.lm.batchable}: slower"
            return Check("left padding", True, detail, _finite(difference), self.tolerance)
        return self._equal("left padding", difference, "scores of padded prompts are wrong: steer --batch-size 1")

    def batch_and_singles(self) -> Check:
        """Steered generation gives the same logits in a batch as alone, step by step."""
        return self._equal(
            "batch = singles",
            _steps_difference(self.nudged_batch, passes.joined([self.nudged_singles] * 2)),
            "steered answers depend on the other prompts of the batch",
        )

    def cache(self) -> Check:
        """Steered generation gives the same logits with and without the cache, step by step."""
        without = passes.alone(self.lm, self.ids, self._middle, use_cache=False)
        return self._equal(
            "cache on = off",
            _steps_difference(self.nudged_singles, without),
            "steered answers depend on the cache",
        )

    # what they look at

    @cached_property
    def ids(self) -> list[tuple[int, ...]]:
        return [self.lm.chat.encode(prompt).ids for prompt in self.prompts]

    @cached_property
    def positions(self) -> ReadPositions:
        encoded = self.lm.chat.encode(self.prompts[1])
        tokens = tuple(self.lm.tokenizer.decode([i]) for i in encoded.ids)
        return ReadPositions(self.lm.chat.has_template, tokens, encoded.t_inst, encoded.t_post_inst)

    @cached_property
    def directions(self) -> Tensor:
        """A random unit direction for each layer [layers, hidden]: a score's readout."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(self.lm.num_layers, self.lm.hidden_size, generator=generator)
        return torch.nn.functional.normalize(drawn, dim=1)

    @cached_property
    def singles(self) -> passes.Generated:
        return passes.alone(self.lm, self.ids)

    @cached_property
    def batch(self) -> passes.Generated:
        return passes.generate(self.lm, self.ids)

    @cached_property
    def nudged_singles(self) -> passes.Generated:
        return passes.alone(self.lm, self.ids, self._middle)

    @cached_property
    def nudged_batch(self) -> passes.Generated:
        # two of each, so that batches of one length are batches, too
        return passes.together(self.lm, [*self.ids, *self.ids], self._middle)

    @cached_property
    def _middle(self) -> Nudge:
        return self._nudge(self.lm.num_layers // 2)

    def _nudge(self, layer: int) -> Nudge:
        """As strong as the residual stream is there."""
        strength = self.singles.last[:, layer].norm(dim=1).mean()
        return Nudge(layer, strength * self.directions[layer])

    def _scores(self, h: Tensor) -> Tensor:
        """Scores [rows, layers] of h [rows, layers, hidden]."""
        scores: Tensor = torch.einsum("rlh,lh->rl", h, self.directions)
        return scores

    def _equal(self, name: str, difference: float, otherwise: str) -> Check:
        passed = difference <= self.tolerance
        detail = "equal" if passed else otherwise
        return Check(name, passed, detail, _finite(difference), self.tolerance)


def _difference(found: Tensor, expected: Tensor) -> float:
    """Root mean square of found - expected, each column in standard deviations of expected.

    Both are [n, columns]. Where a column hardly varies, a tenth of its size is taken for its deviation:
    rounding errors grow with size. Infinite where something is not finite.
    """
    scale = torch.maximum(expected.std(0, correction=0), 0.1 * _size(expected)).clamp_min(1e-30)
    difference = ((found - expected) / scale).square().mean().sqrt().item()
    return difference if math.isfinite(difference) else math.inf


def _size(columns: Tensor) -> Tensor:
    """Root mean square of each column."""
    return columns.square().mean(0).sqrt()


def _steps_difference(found: passes.Generated, expected: passes.Generated) -> float:
    """As `_difference`, of each row's and step's logits, up to where their tokens part: a tie may part them."""
    parted = (found.tokens != expected.tokens).long().cumsum(1)
    comparable = torch.cat([torch.zeros_like(parted[:, :1]), parted[:, :-1]], dim=1) == 0
    return _difference(found.logits[comparable].T, expected.logits[comparable].T)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
