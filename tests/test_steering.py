"""Routing in generation: rows, batches and caches agree, and the model is left as it was."""

import numpy as np
import pytest
import tiny
import torch

from recalib.errors import ArtifactError
from recalib.extraction import extract
from recalib.fingerprint import Fingerprint
from recalib.gate.fitting import fit_gate
from recalib.gate.forms import Form, LanguageRows
from recalib.gate.gate import Gate, GateMeta
from recalib.gate.readout import SourceRows
from recalib.gate.threshold import Threshold
from recalib.lm.model import wrap
from recalib.steering.generation import Request, generate
from recalib.steering.routing import Router, routing

LAYER = 1
PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11", "w12 w13", "w14 w15 w16 w17", "w18 w19 w20"]


def make_gate(lm, strength=30.0, threshold=None):
    """A gate on random prompts whose threshold splits PROMPTS in two."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.integers(0, 95, 5)) for _ in range(40)]
    rows = extract(lm, texts, (LAYER,), ("t_post_inst",))[:, 0, 0]
    fit = fit_gate({"en": LanguageRows(rows[:20], rows[20:])}, Form("subspace", 1))
    fitted = fit.fitted
    scores = fitted.scores(extract(lm, PROMPTS, (LAYER,), ("t_post_inst",))[:, 0, 0])
    value = float(np.median(scores)) if threshold is None else threshold
    meta = GateMeta(LAYER, "t_post_inst", strength, Threshold(value, "midpoint", 1), lm.fingerprint)
    return Gate(fit.direction, fitted.basis, fitted.readout, SourceRows(fitted.features, fitted.labels), meta)


@pytest.fixture(params=sorted(tiny.CONFIGS))
def lm(request):
    return wrap(tiny.model(request.param), tiny.tokenizer())


def complete(lm, gate, prompts, **options):
    batches = generate(lm, gate, [Request(p) for p in prompts], max_new_tokens=8, **options)
    return [completion for batch in batches for completion in batch]


def test_mixed_batch_matches_prompts_alone(lm):
    gate = make_gate(lm)
    together = complete(lm, gate, PROMPTS, batch_size=6)
    alone = complete(lm, gate, PROMPTS, batch_size=1)
    assert {c.flagged for c in together} == {True, False}
    assert [c.completion for c in together] == [c.completion for c in alone]
    np.testing.assert_allclose([c.score for c in together], [c.score for c in alone], rtol=1e-3, atol=1e-3)


def test_scores_in_generation_are_those_of_extraction(lm):
    gate = make_gate(lm)
    rows = extract(lm, PROMPTS, (LAYER,), ("t_post_inst",))[:, 0, 0]
    scores = [c.score for c in complete(lm, gate, PROMPTS)]
    np.testing.assert_allclose(scores, gate.scores(rows), rtol=1e-3, atol=1e-3)


def test_steering_changes_answers_and_no_steer_does_not(lm):
    gate = make_gate(lm)
    ids = [torch.tensor([lm.chat.encode(p).ids]) for p in PROMPTS]
    plain = [lm.model.generate(i, attention_mask=torch.ones_like(i), max_new_tokens=8, do_sample=False) for i in ids]
    texts = [
        lm.tokenizer.decode(o[0, i.shape[1] :], skip_special_tokens=True).strip()
        for o, i in zip(plain, ids, strict=True)
    ]
    assert [c.completion for c in complete(lm, gate, PROMPTS, steer=False)] == texts
    assert [c.completion for c in complete(lm, gate, PROMPTS)] != texts


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
def test_cache_on_matches_cache_off(architecture):
    lm = wrap(tiny.model(architecture), tiny.tokenizer())
    gate = make_gate(lm)
    cached = complete(lm, gate, PROMPTS)
    lm.model.generation_config.use_cache = False
    assert [c.completion for c in complete(lm, gate, PROMPTS)] == [c.completion for c in cached]


def test_a_prompt_of_one_token_is_decided_at_prefill():
    lm = wrap(tiny.model("qwen2"), tiny.tokenizer(template=None))
    assert len(lm.chat.encode("w3").ids) == 1
    flagging, passing = make_gate(lm, threshold=-1e9), make_gate(lm, threshold=1e9)
    flagged, passed = complete(lm, flagging, ["w3"]), complete(lm, passing, ["w3"])
    assert flagged[0].flagged
    assert not passed[0].flagged
    assert flagged[0].completion != passed[0].completion
    assert flagged[0].score == passed[0].score


def test_hooks_are_gone_and_weights_the_same_after_an_exception():
    lm = wrap(tiny.model("llama"), tiny.tokenizer())
    gate = make_gate(lm)
    before = {name: p.clone() for name, p in lm.model.named_parameters()}
    with pytest.raises(RuntimeError, match="on purpose"), routing(lm, Router(gate, [None])):
        raise RuntimeError("on purpose")
    assert not any(module._forward_hooks for module in lm.model.modules())
    assert all(torch.equal(before[name], p) for name, p in lm.model.named_parameters())


def test_beams_share_their_prompts_decision():
    lm = wrap(tiny.model("qwen2"), tiny.tokenizer())
    gate = make_gate(lm)
    ids = torch.tensor([lm.chat.encode(p).ids for p in ["w1 w2 w3", "w18 w19 w20"]])
    with routing(lm, Router(gate, [None, None])) as router:
        lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), num_beams=3, num_return_sequences=2, max_new_tokens=5
        )
    assert len(router.decisions) in (2, 6)
    repeats = len(router.decisions) // 2
    assert len({decision.flagged for decision in router.decisions[:repeats]}) == 1


def test_a_gate_of_another_model_is_refused():
    lm = wrap(tiny.model("qwen2"), tiny.tokenizer())
    other = Fingerprint(model="somebody/else", architecture="LlamaForCausalLM")
    gate = make_gate(lm)
    foreign = Gate(
        gate.direction,
        gate.basis,
        gate.readout,
        gate.source,
        GateMeta(LAYER, "t_post_inst", 1.0, gate.meta.transferred, other),
    )
    with pytest.raises(ArtifactError, match=r"somebody/else.*LlamaForCausalLM against Qwen2ForCausalLM"):
        complete(lm, foreign, ["w1"])
