"""Routing in generation: rows, batches and caches agree, and the model is left as it was."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

import recalib
from recalib.errors import ArtifactError, UsageError
from recalib.extraction import extract
from recalib.fingerprint import Fingerprint
from recalib.gate.fitting import fit_gate
from recalib.gate.forms import Form, LanguageRows
from recalib.gate.gate import Gate, GateMeta
from recalib.gate.readout import SourceRows
from recalib.gate.threshold import Threshold
from recalib.lm.model import wrap
from recalib.routing.generation import Request, generate

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


@pytest.fixture(params=sorted(set(tiny.CONFIGS) - set(tiny.UNPADDED)))
def padded_lm(request):
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


def inputs_of(lm, prompts, side="left"):
    """What a notebook would make of the prompts: formatted, padded, as tensors."""
    texts = [lm.chat.format(prompt) for prompt in prompts]
    return lm.tokenizer(texts, padding=True, padding_side=side, return_tensors="pt", return_token_type_ids=False)


def steered(lm, gate, prompts, languages=None, **options):
    """Generated ids [rows, new tokens] and decisions, through the public context manager."""
    inputs = inputs_of(lm, prompts)
    with recalib.steering(lm.model, lm.tokenizer, gate, languages) as routed:
        ids = lm.model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, **{"do_sample": False, **options})
    return ids[:, inputs["input_ids"].shape[1] :], routed.decisions


def test_a_notebook_gets_what_the_command_line_gets(padded_lm):
    lm = padded_lm
    gate = make_gate(lm)
    inputs = inputs_of(lm, PROMPTS)
    with recalib.steering(lm.model, lm.tokenizer, gate) as routed:
        ids = lm.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    texts = lm.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    expected = complete(lm, gate, PROMPTS)
    assert [text.strip() for text in texts] == [c.completion for c in expected]
    assert [d.flagged for d in routed.decisions] == [c.flagged for c in expected]
    assert [d.score for d in routed.decisions] == pytest.approx([c.score for c in expected], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_are_those_of_prompts_alone_whatever_the_padding(padded_lm, side):
    lm = padded_lm
    gate = make_gate(lm)
    together, alone = inputs_of(lm, PROMPTS, side), []
    if "position_ids" in inspect.signature(lm.model.forward).parameters:  # as `generate` counts them
        together["position_ids"] = (together["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), recalib.steering(lm.model, lm.tokenizer, gate) as routed:
        logits = lm.model(**together).logits
        decisions = routed.decisions
        for prompt in PROMPTS:  # a new prompt in the same context is decided anew
            alone.append(lm.model(**inputs_of(lm, [prompt])).logits[0, -1])
            assert len(routed.decisions) == 1
    last = -1 if side == "left" else together["attention_mask"].sum(1) - 1
    np.testing.assert_allclose(logits[torch.arange(len(PROMPTS)), last], torch.stack(alone), rtol=2e-3, atol=2e-3)
    assert {d.flagged for d in decisions} == {True, False}


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 2.0},
        {"cache_implementation": "static"},
        {"use_cache": False},
        {"use_cache": False, "num_beams": 3},
    ],
    ids=",".join,
)
@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "gemma3", "mixtral"])
def test_every_way_to_generate_gives_a_row_what_it_gets_alone(architecture, options):
    lm = wrap(tiny.model(architecture), tiny.tokenizer())
    gate = make_gate(lm)
    together, decisions = steered(lm, gate, PROMPTS, [None] * len(PROMPTS), **options)
    alone = [steered(lm, gate, [prompt], [None], **options) for prompt in PROMPTS]
    assert torch.equal(together, torch.cat([ids for ids, _ in alone]))
    assert [d.flagged for d in decisions] == [d.flagged for _, (d,) in alone]
    assert {d.flagged for d in decisions} == {True, False}


@pytest.mark.parametrize("architecture", ["qwen2", "gemma3"])
def test_caches_of_all_kinds_agree(architecture):
    lm = wrap(tiny.model(architecture), tiny.tokenizer())
    gate = make_gate(lm)
    dynamic, _ = steered(lm, gate, PROMPTS)
    assert torch.equal(dynamic, steered(lm, gate, PROMPTS, cache_implementation="static")[0])
    assert torch.equal(dynamic, steered(lm, gate, PROMPTS, use_cache=False)[0])


def test_samples_of_a_prompt_share_its_decision():
    lm = wrap(tiny.model("qwen2"), tiny.tokenizer())
    gate, inputs = make_gate(lm), inputs_of(lm, PROMPTS)
    with recalib.steering(lm.model, lm.tokenizer, gate, [None] * len(PROMPTS)) as routed:
        with torch.no_grad():
            first = lm.model(**inputs).logits[:, -1]
        torch.manual_seed(0)
        sampled = lm.model.generate(
            **inputs,
            do_sample=True,
            num_return_sequences=4,
            max_new_tokens=4,
            output_logits=True,
            return_dict_in_generate=True,
        )
    assert len(routed.decisions) == len(PROMPTS)
    torch.testing.assert_close(sampled.logits[0], first.repeat_interleave(4, dim=0), rtol=1e-4, atol=1e-4)
    assert len({tuple(row) for row in sampled.sequences.tolist()}) > len(PROMPTS)


def test_a_next_turn_on_the_same_cache_is_decided_anew():
    lm = wrap(tiny.model("qwen2"), tiny.tokenizer())
    gate = make_gate(lm)
    first = inputs_of(lm, [PROMPTS[0]])
    with recalib.steering(lm.model, lm.tokenizer, gate) as routed:
        out = lm.model.generate(**first, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
        decided = routed.decisions
        following = torch.cat([out.sequences, inputs_of(lm, ["w40 w41 w42"])["input_ids"]], dim=1)
        cached = lm.model.generate(
            following, past_key_values=out.past_key_values, max_new_tokens=1, attention_mask=torch.ones_like(following)
        )
        again = routed.decisions
    assert again != decided
    assert cached.shape[1] == following.shape[1] + 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype):
    lm = wrap(tiny.model("qwen2").to(dtype), tiny.tokenizer())
    gate = make_gate(lm)
    together, decisions = steered(lm, gate, PROMPTS)
    assert {d.flagged for d in decisions} == {True, False}
    alone = [steered(lm, gate, [prompt]) for prompt in PROMPTS]
    assert [d.flagged for d in decisions] == [d.flagged for _, (d,) in alone]
    assert [row.tolist() for row in together] == [ids[0].tolist() for ids, _ in alone]


def test_a_compiled_model_is_steered_too():
    lm = wrap(tiny.model("qwen2"), tiny.tokenizer())
    gate, inputs = make_gate(lm), inputs_of(lm, PROMPTS)
    with torch.no_grad(), recalib.steering(lm.model, lm.tokenizer, gate):
        expected = lm.model(**inputs).logits
    compiled = torch.compile(lm.model, backend="eager")
    with torch.no_grad():
        plain = compiled(**inputs).logits  # what was compiled before knows no hook
        with recalib.steering(compiled, lm.tokenizer, gate) as routed:
            torch.testing.assert_close(compiled(**inputs).logits, expected)
        assert len(routed.decisions) == len(PROMPTS)
        torch.testing.assert_close(compiled(**inputs).logits, plain)


def test_a_model_that_accelerate_dispatched(tmp_path):
    """`device_map` models run with hooks of their own, and blocks in other places than the rest."""
    accelerate = pytest.importorskip("accelerate")
    lm = wrap(tiny.model("llama"), tiny.tokenizer())
    gate = make_gate(lm)
    expected, decisions = steered(lm, gate, PROMPTS)
    parts = ["lm_head", *(f"model.{name}" for name, _ in lm.model.model.named_children() if name != "layers")]
    places = dict.fromkeys(parts, "cpu") | {f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(4)}
    accelerate.dispatch_model(lm.model, places, main_device="cpu", offload_dir=tmp_path)
    assert lm.blocks[1].self_attn.q_proj.weight.device.type == "meta"
    found, again = steered(lm, gate, PROMPTS)
    assert torch.equal(found, expected)
    assert [d.flagged for d in again] == [d.flagged for d in decisions]


def test_hooks_are_gone_and_the_model_is_the_same_after_an_exception():
    lm = wrap(tiny.model("llama"), tiny.tokenizer())
    gate, inputs = make_gate(lm), inputs_of(lm, PROMPTS)
    state = {name: value.clone() for name, value in lm.model.state_dict().items()}
    with torch.no_grad():
        before = lm.model(**inputs).logits
    with pytest.raises(RuntimeError, match="on purpose"), recalib.steering(lm.model, lm.tokenizer, gate):
        lm.model(**inputs)
        raise RuntimeError("on purpose")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.model.modules())
    assert all(torch.equal(state[name], value) for name, value in lm.model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(lm.model(**inputs).logits, before)


def test_languages_are_one_for_each_prompt():
    lm = wrap(tiny.model("qwen2"), tiny.tokenizer())
    gate = make_gate(lm)
    with pytest.raises(UsageError, match="4 languages for a batch of 6 rows"):
        steered(lm, gate, PROMPTS, ["en"] * 4)
    _, decisions = steered(lm, gate, PROMPTS, ["sw"] * 6, num_beams=2)
    assert [d.language for d in decisions] == ["sw"] * 6


def test_a_gate_that_reads_elsewhere_cannot_steer():
    lm = wrap(tiny.model("qwen2"), tiny.tokenizer())
    gate = make_gate(lm)
    elsewhere = replace(gate, meta=replace(gate.meta, position="mean"))
    with pytest.raises(ArtifactError, match=r"reads mean.*t_post_inst"):
        complete(lm, elsewhere, ["w1"])


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
