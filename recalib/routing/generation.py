"""Completions of prompts, decided and steered by a gate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from recalib.gate.decision import Decision
from recalib.gate.gate import Gate
from recalib.lm.model import LanguageModel
from recalib.lm.padding import left_padded
from recalib.routing.router import Router, routing

MAX_NEW_TOKENS = 128
BATCH_SIZE = 16


@dataclass(frozen=True)
class Request:
    """A prompt to complete; where `language` is None, the gate tells it from the prompt's activation.

    `history` has the turns of the conversation before it, the user's and the model's by turns.
    """

    prompt: str
    language: str | None = None
    history: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """A prompt's completion and the gate's decision on it.

    `language` is the one whose threshold was applied, `note` says why where it was the sources'.
    """

    prompt: str
    language: str | None
    completion: str
    score: float
    threshold: float
    flagged: bool
    deferred: bool = False
    note: str | None = None


OnDefer = Literal["steer", "pass", "refuse"]
REFUSAL = "I cannot help with that."
"""What stands in place of the answer to a deferred prompt where those are refused."""


def generate(
    lm: LanguageModel,
    gate: Gate,
    requests: Sequence[Request],
    *,
    steer: bool = True,
    on_defer: OnDefer = "steer",
    batch_size: int = BATCH_SIZE,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Iterator[list[Completion]]:
    """Greedy completions, a batch at a time, in the order of the requests.

    With `steer` off the gate still decides, and the model answers as it would alone. Prompts that the gate
    defers are steered like flagged ones, passed, or answered with `REFUSAL`, as `on_defer` says.
    Raises ArtifactError if the gate was made with another model.
    """
    gate.meta.model.require_same(lm.fingerprint, "the gate", "the model in use")
    lm.require_layer(gate.meta.layer)
    for start in range(0, len(requests), batch_size):
        part = requests[start : start + batch_size]
        encoded = [lm.chat.encode(request.prompt, request.history).ids for request in part]
        completions: dict[int, Completion] = {}
        for rows in lm.left_padded_batches(list(map(len, encoded))):
            router = Router(gate, [part[i].language for i in rows], steer, steer_deferred=on_defer == "steer")
            texts = _texts(lm, router, [encoded[i] for i in rows], max_new_tokens)
            for i, text, decision in zip(rows, texts, router.decisions, strict=True):
                answer = REFUSAL if decision.deferred and on_defer == "refuse" else text
                completions[i] = _completion(part[i].prompt, answer, decision)
        yield [completions[i] for i in range(len(part))]


def _completion(prompt: str, text: str, d: Decision) -> Completion:
    return Completion(prompt, d.language, text, d.score, d.threshold, d.flagged, d.deferred, d.note)


def _texts(lm: LanguageModel, router: Router, rows: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
    """The completions of one batch of prompts' token ids."""
    ids, mask = left_padded(rows, lm.tokenizer.pad_token_id, lm.device)
    with torch.inference_mode(), routing(lm.model, lm.blocks[router.gate.meta.layer], router):
        output = lm.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=lm.tokenizer.pad_token_id,
        )
    return [text.strip() for text in lm.tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)]
