"""The doctor: it passes models that recalib works on, and refuses the others with the reason."""

import json

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM
from transformers.models import bert

from recalib.doctor import diagnose
from recalib.errors import ModelError
from recalib.extraction import extract
from recalib.lm.model import wrap

PROMPTS = ("w1", "w2 w3 w4 w5", "w6 w7 w8 w9 w10 w11 w12", " ".join(f"w{i}" for i in range(20, 43)))
CHECKS = [
    "chat format",
    "block outputs",
    "causal",
    "steering",
    "right padding",
    "left padding",
    "batch = singles",
    "cache on = off",
]


def encoder():
    """BERT as its default config has it: every token sees every other."""
    torch.manual_seed(0)
    config = bert.BertConfig(
        vocab_size=len(tiny.WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        eos_token_id=2,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def failed(found):
    return {check.name: check.detail for check in found.checks if not check.passed}


@pytest.mark.parametrize("architecture", sorted(tiny.CONFIGS))
def test_recalib_works_on(architecture):
    found = diagnose(wrap(tiny.model(architecture), tiny.tokenizer()), PROMPTS)
    assert failed(found) == {}
    assert found.works
    assert found.reason is None
    assert [check.name for check in found.checks] == CHECKS
    assert (found.num_layers, found.hidden_size) == (4, 32)
    assert found.positions.tokens[found.positions.t_inst] == "w5"
    assert found.positions.tokens[found.positions.t_post_inst] == "<assistant>"


def test_half_precision_is_held_to_its_own_tolerance():
    lm = wrap(tiny.model("llama").to(torch.bfloat16), tiny.tokenizer())
    found = diagnose(lm, PROMPTS)
    assert failed(found) == {}
    assert found.dtype == "bfloat16"
    tolerances = [check.tolerance for check in found.checks if check.tolerance is not None]
    assert tolerances == pytest.approx([0.177] * len(tolerances), abs=1e-3)


@pytest.mark.parametrize(
    ("architecture", "together"),
    [("qwen2", "any prompts"), ("bart", "prompts of one length"), ("rwkv", "single prompts")],
)
def test_batches_hold_only_what_the_model_bears(architecture, together):
    lm = wrap(tiny.model(architecture), tiny.tokenizer())
    assert lm.batchable == together
    batches = lm.left_padded_batches([4, 6, 4])
    assert (
        batches
        == {
            "any prompts": [[0, 1, 2]],
            "prompts of one length": [[0, 2], [1]],
            "single prompts": [[0], [1], [2]],
        }[together]
    )
    padding = next(check for check in diagnose(lm, PROMPTS).checks if check.name == "left padding")
    assert together == "any prompts" or together in padding.detail


def test_the_decoder_of_a_multimodal_model_is_found_and_not_its_vision_tower():
    lm = wrap(tiny.model("gemma3_multimodal"), tiny.tokenizer())
    assert diagnose(lm, PROMPTS).blocks == "model.language_model.layers"


def test_blocks_are_found_where_the_config_counts_others():
    model = tiny.model("llama")
    model.config.num_hidden_layers = 2  # the decoder's own list has 8
    model.model.layers.extend(tiny.model("llama", seed=1).model.layers)
    assert wrap(model, tiny.tokenizer()).blocks is model.model.layers


def test_an_encoder_is_refused():
    assert "no decoder" in failed(diagnose(wrap(encoder(), tiny.tokenizer()), PROMPTS))["causal"]


def test_blocks_that_bypass_hooks_are_refused():
    model = tiny.model("llama")
    for block in model.model.layers:
        direct = {"__call__": lambda self, *args, **options: self.forward(*args, **options)}
        block.__class__ = type("Direct", (type(block),), direct)
    found = diagnose(wrap(model, tiny.tokenizer()), PROMPTS)
    assert not found.works
    assert "runs 0 times" in failed(found)["block outputs"]
    with pytest.raises(ModelError, match="hooks on block 0 are not called"):
        extract(wrap(model, tiny.tokenizer()), PROMPTS, (1,), ("t_post_inst",))


def test_blocks_that_do_not_give_a_vector_for_each_token_are_refused_by_every_command():
    model = tiny.model("llama")
    for block in model.model.layers:
        block.register_forward_hook(lambda module, inputs, output: torch.cat([output[:, :1], output], dim=1))
    lm = wrap(model, tiny.tokenizer())
    message = r"returns \[1, 3, 32\] for one row of two tokens"
    with pytest.raises(ModelError, match=message):
        extract(lm, PROMPTS, (1,), ("t_post_inst",))
    assert not diagnose(lm, PROMPTS).works


def test_a_block_whose_output_goes_nowhere_is_refused():
    model = tiny.model("llama")
    model.model.norm.register_forward_pre_hook(lambda module, inputs: (torch.zeros_like(inputs[0]),))
    assert "does not change the logits" in failed(diagnose(wrap(model, tiny.tokenizer()), PROMPTS))["steering"]


def test_a_tokenizer_that_does_not_know_the_text_is_refused():
    tokenizer = tiny.tokenizer(template="<user> {{ 'w1' }} <assistant>")
    found = diagnose(wrap(tiny.model("llama"), tokenizer), PROMPTS)
    assert "same tokens" in failed(found)["chat format"]


def test_what_the_models_code_raises_is_the_reason():
    model = tiny.model("llama")

    def broken(*args, **options):
        raise IndexError("out of luck")

    model.model.layers[2].mlp.forward = broken
    found = diagnose(wrap(model, tiny.tokenizer()), PROMPTS)
    assert failed(found)["block outputs"] == "the model raised IndexError: out of luck"


def test_a_model_without_blocks_is_refused():
    model = tiny.model("llama")
    model.model.layers = torch.nn.Sequential(*model.model.layers)
    with pytest.raises(ModelError, match="LlamaForCausalLM: no list of decoder blocks"):
        wrap(model, tiny.tokenizer())


def test_the_command_on_a_saved_model(recalib, tmp_path):
    folder = tiny.save("llama", tmp_path / "model")
    ran = recalib("doctor", folder, "--json", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["works"] is True
    assert ran.json["reason"] is None
    assert ran.json["blocks"] == "model.layers"
    assert ran.json["architecture"] == "LlamaForCausalLM"
    assert (ran.json["dtype"], ran.json["device"]) == ("float32", "cpu")
    assert ran.json["positions"]["tokens"][-1] == "<assistant>"
    assert [check["name"] for check in ran.json["checks"]] == CHECKS
    assert set(ran.json["checks"][0]) == {"name", "passed", "detail", "difference", "tolerance"}


def test_the_command_shows_read_positions_and_checks(recalib):
    ran = recalib("doctor", "organism")
    assert ran.code == 0
    assert "t_post_inst='<|assistant|>'" in ran.out
    assert "model.layers" in ran.out
    assert all(name in ran.out for name in CHECKS)


def test_the_command_refuses_with_the_reason(recalib, tmp_path):
    encoder().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    ran = recalib("doctor", tmp_path, "--json", "--quiet")
    assert ran.code == 1
    assert "causal: a token's states depend on the tokens after it" in ran.err
    assert ran.json["works"] is False
    assert ran.json["reason"] in ran.err


def test_a_model_that_does_not_load_is_refused_in_json_too(recalib, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    ran = recalib("doctor", tmp_path, "--json", "--quiet")
    assert ran.code == 1
    assert ran.json["works"] is False
    assert ran.json["reason"]
    assert ran.json["reason"] in ran.err
