"""Steering any transformers model from Python, in a `with` statement."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from recalib.errors import ModelError
from recalib.gate.gate import Gate
from recalib.lm.blocks import find_blocks
from recalib.lm.model import fingerprint
from recalib.routing.router import Router, routing


@contextlib.contextmanager
def steering(
    model: Any,
    tokenizer: Any,
    gate: Gate,
    languages: Sequence[str | None] | None = None,
    *,
    steer_deferred: bool = True,
) -> Iterator[Router]:
    """Within the context, `model` is steered by `gate`, whether it generates or is called.

        with recalib.steering(model, tokenizer, gate, languages=["sw", "en"]) as routed:
            output = model.generate(**inputs)
        routed.decisions  # score, threshold, language, flagged: of each prompt

    `model` is a causal LM of transformers and `tokenizer` its tokenizer; neither is changed, and the hooks
    are gone afterwards, also after an exception. Prompts must be formatted by the chat template, as when
    the gate was fitted. `languages` names each prompt's language; without it, or where it is None, the gate
    tells it from the activation. Rows of a batch may be padded on either side; `attention_mask` says so.
    Prompts that the gate defers are steered unless `steer_deferred` is off. Raises ArtifactError if
    the gate was made with another model, or reads elsewhere than at the last prompt token.
    """
    model = getattr(model, "_orig_mod", model)  # the model that torch.compile wraps
    if hasattr(model, "get_base_model"):  # PEFT's wrapper generates with the model inside
        model = model.get_base_model()
    gate.meta.model.require_same(fingerprint(model, tokenizer, None), "the gate", "the model in use")
    blocks, layer = find_blocks(model), gate.meta.layer
    if layer >= len(blocks):
        raise ModelError(f"the gate is for layer {layer}, but the model has {len(blocks)} blocks")
    with routing(model, blocks[layer], Router(gate, languages, steer_deferred=steer_deferred)) as router:
        yield router
