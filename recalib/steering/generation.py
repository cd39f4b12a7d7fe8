"""Completions of prompts, decided and steered by a gate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from recalib.gate.gate import Gate
from recalib.lm.model import LanguageModel
from recalib.steering.routing import routing

MAX_NEW_TOKENS = 128
BATCH_SIZE = 16


@dataclass(frozen=True)
class Request:
    """A prompt to complete; `language` None takes the gate's transferred threshold."""

    prompt: str
    language: str | None = None


@dataclass(frozen=True)
class Completion:
    """A prompt's completion and the gate's decision on it."""

    prompt: str
    language: str | None
    completion: str
    score: float
    threshold: float
    flagged: bool


def generate(
    lm: LanguageModel,
    gate: Gate,
    requests: Sequence[Request],
    *,
    steer: bool = True,
    batch_size: int = BATCH_SIZE,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Iterator[list[Completion]]:
    """Greedy completions, a batch at a time, in the order of the requests.

    With `steer` off the gate still decides, and the model answers as it would alone.
    Raises ArtifactError if the gate was made with another model.
    """
    gate.meta.model.require_same(lm.fingerprint, "the gate", "the model in use")
    lm.require_layer(gate.meta.layer)
    for start in range(0, len(requests), batch_size):
        yield _batch(lm, gate, requests[start : start + batch_size], steer, max_new_tokens)


def _batch(
    lm: LanguageModel, gate: Gate, requests: Sequence[Request], steer: bool, max_new_tokens: int
) -> list[Completion]:
    encoded = [lm.chat.encode(request.prompt).ids for request in requests]
    width = max(map(len, encoded))
    ids = torch.full((len(encoded), width), lm.tokenizer.pad_token_id)
    mask = torch.zeros((len(encoded), width), dtype=torch.long)
    for i, row in enumerate(encoded):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    with torch.inference_mode(), routing(lm, gate, [r.language for r in requests], steer) as router:
        output = lm.model.generate(
            input_ids=ids.to(lm.device),
            attention_mask=mask.to(lm.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=lm.tokenizer.pad_token_id,
        )
    texts = lm.tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    decided = router.decisions
    assert decided is not None, "generate ran the model, so the router has decided"
    return [
        Completion(request.prompt, request.language, text.strip(), score, threshold, flagged)
        for request, text, score, threshold, flagged in zip(
            requests, texts, decided.scores, decided.thresholds, decided.flagged, strict=True
        )
    ]
