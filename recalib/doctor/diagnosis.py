"""The checks, what they compare, and what they found."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from recalib.doctor import passes
from recalib.doctor.passes import Nudge
from recalib.errors import RecalibError
from recalib.extraction import extract
from recalib.lm.model import LanguageModel
from recalib.lm.padding import tolerance

PROMPTS = (
    "Hello",
    "How do I bake bread?",
    "Nipe mapishi ya wali wa nazi, tafadhali, kwa watu wanne.",
    "Write three sentences about the sea, one about the wind, and end with a question that a child might ask.",
)
"""What a model is checked on unless other prompts are given: short, and of different lengths."""


@dataclass(frozen=True)
class Check:
    """One thing that recalib's commands rely on.

    `difference` is what was measured where two ways of running the model were compared, in standard
    deviations over prompts (scores) or over the vocabulary (logits), and `tolerance` what it is held
    against; `detail` says what was found, and, where it did not pass, what that means.
    """

    name: str
    passed: bool
    detail: str
    difference: float | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class ReadPositions:
    """Tokens of a formatted prompt, with the indices that activations are read at."""

    template: bool
    tokens: tuple[str, ...]
    t_inst: int
    t_post_inst: int


@dataclass(frozen=True)
class Diagnosis:
    """A model's facts, and the checks that it passed or not."""

    model: str | None
    architecture: str | None
    parameters: int
    dtype: str
    device: str
    blocks: str
    num_layers: int
    hidden_size: int | None
    positions: ReadPositions | None
    checks: tuple[Check, ...]

    @property
    def works(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def reason(self) -> str | None:
        """Why recalib does not work on the model; None where it does."""
        return "; ".join(f"{check.name}: {check.detail}" for check in self.checks if not check.passed) or None


def diagnose(lm: LanguageModel, prompts: Sequence[str] = PROMPTS) -> Diagnosis:
    """Run every check, or those up to one that the others build on and that fails.

    What the model's code raises fails the check in which it does. `prompts` should have different lengths:
    equal ones need no padding.
    """
    patient = _Patient(lm, tuple(prompts))
    checks: list[Check] = []
    for name, check in patient.checks().items():
        checks.append(_attempt(name, check))
        if name == "block outputs" and not checks[-1].passed:
            break  # the other checks look at these outputs
    return Diagnosis(
        model=lm.fingerprint.model,
        architecture=lm.fingerprint.architecture,
        parameters=sum(p.numel() for p in lm.model.parameters()),
        dtype=str(lm.model.dtype).removeprefix("torch."),
        device=str(lm.device),
        blocks=_name_of(lm),
        num_layers=lm.num_layers,
        hidden_size=lm.hidden_size if checks[1].passed else None,
        positions=patient.positions if checks[0].passed else None,
        checks=tuple(checks),
    )


def _attempt(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except RecalibError as error:
        return Check(name, False, str(error))
    except Exception as error:  # noqa: BLE001 - the model's code may raise anything, and that is the finding
        reason = next(iter(str(error).strip().splitlines()), "")
        return Check(name, False, f"the model raised {type(error).__name__}: {reason}")


class _Patient:
    """A model under examination: passes that several checks look at are run once."""

    def __init__(self, lm: LanguageModel, prompts: tuple[str, ...]):
        self.lm = lm
        self.prompts = prompts
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
            return Check(
                "chat format", False, "different prompts have the same tokens: the tokenizer is not the model's"
            )
        found = self.positions
        kind = "the tokenizer's chat template" if found.template else "no chat template: prompts are read as they are"
        read = f"t_inst reads {found.tokens[found.t_inst]!r}, t_post_inst {found.tokens[found.t_post_inst]!r}"
        return Check("chat format", True, f"{kind}; {read}")

    def block_outputs(self) -> Check:
        h = passes.states(self.lm, self.ids[-1])
        if not torch.isfinite(h).all():
            return Check("block outputs", False, f"NaN or infinite in {self.lm.model.dtype}: try --dtype float32")
        return Check(
            "block outputs", True, f"{len(h)} blocks, each runs once and returns [batch, tokens, {h.shape[2]}]"
        )

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
        layers = sorted({0, self.lm.num_layers // 2, self.lm.num_layers - 1})
        changes = {}
        for layer in layers:
            nudged = passes.alone(self.lm, self.ids[:1], self._nudge(layer)).logits[:, :1]
            changes[layer] = _difference(nudged.flatten(1).T, plain.flatten(1).T)
        deaf = [str(layer) for layer, change in changes.items() if not change > self.tolerance]
        least = min(changes.values())
        if deaf:
            detail = f"a vector added to the output of block {', '.join(deaf)} does not change the logits"
            return Check("steering", False, detail, _finite(least), self.tolerance)
        return Check("steering", True, f"a vector added at block {_joined(layers)} changes the logits", least, None)

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
        drawn = torch.randn(self.lm.num_layers, self.lm.hidden_size, generator=torch.Generator().manual_seed(0))
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
    """Largest over columns of the root mean square of found - expected, in standard deviations of expected.

    Both are [n, columns]. Infinite where either is not finite.
    """
    spread = expected.std(0, correction=0)
    # columns that do not vary are measured by their size
    scale = torch.where(spread > 1e-6 * expected.abs().amax(0), spread, expected.abs().amax(0)).clamp_min(1e-30)
    ratio = ((found - expected).square().mean(0).sqrt() / scale).max().item()
    return ratio if math.isfinite(ratio) else math.inf


def _steps_difference(found: passes.Generated, expected: passes.Generated) -> float:
    """As `_difference`, of each row's and step's logits, up to where their tokens part: a tie may part them."""
    parted = (found.tokens != expected.tokens).long().cumsum(1)
    comparable = torch.cat([torch.zeros_like(parted[:, :1]), parted[:, :-1]], dim=1) == 0
    return _difference(found.logits[comparable].T, expected.logits[comparable].T)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _joined(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


def _name_of(lm: LanguageModel) -> str:
    names: dict[Any, str] = {module: name for name, module in lm.model.named_modules()}
    return names[lm.blocks]
