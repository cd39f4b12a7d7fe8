"""Chat formats and read positions, on the real Qwen2.5 template and on awkward ones."""

import pytest
import tiny
from transformers import AutoTokenizer

from recalib.errors import ModelError
from recalib.lm.chat import ChatFormat


@pytest.fixture(scope="module")
def qwen(shared):
    return ChatFormat(AutoTokenizer.from_pretrained(shared / "data" / "qwen2.5-tokenizer"))


@pytest.mark.parametrize(
    "prompt", ["How do I bake bread?", "assistant", "user\nassistant", "面包怎么做？", "ដូចម្តេច?", "x", "recalib"]
)
def test_positions_on_a_real_template(qwen, prompt):
    encoded = qwen.encode(prompt)
    tokens = qwen.tokenizer.convert_ids_to_tokens(encoded.ids)
    assert qwen.tokenizer.decode(encoded.ids).endswith(f"{prompt}<|im_end|>\n<|im_start|>assistant\n")
    assert tokens[encoded.t_inst + 1] == "<|im_end|>"
    assert encoded.t_post_inst == len(tokens) - 1
    text_end = qwen.tokenizer.decode(encoded.ids[: encoded.t_inst + 1])
    assert text_end.endswith(prompt)


def test_it_is_what_the_tokenizer_itself_makes_of_a_chat(qwen):
    turns = [{"role": "user", "content": "Good morning!"}]
    expected = qwen.tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert list(qwen.encode("Good morning!").ids) == list(expected)


def test_a_conversation_is_what_the_tokenizer_itself_makes_of_it(qwen):
    turns = [
        {"role": "user", "content": "Good morning!"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And now?"},
    ]
    expected = qwen.tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    encoded = qwen.encode("And now?", ("Good morning!", "Hello."))
    assert list(encoded.ids) == list(expected)
    assert qwen.tokenizer.decode(encoded.ids[: encoded.t_inst + 1]).endswith("And now?")


def test_a_model_without_a_template_holds_no_conversation():
    with pytest.raises(ModelError, match="no chat template"):
        ChatFormat(tiny.tokenizer(template=None)).encode("w1", ("w2", "w3"))


def test_a_template_that_trims_the_prompt():
    chat = ChatFormat(tiny.tokenizer())
    assert chat.encode("  w1 w2  ") == chat.encode("w1 w2")
    tokens = chat.tokenizer.convert_ids_to_tokens(chat.encode("w1 w2").ids)
    assert tokens[chat.encode("w1 w2").t_inst] == "w2"


def test_a_template_with_bos_gets_no_second_one():
    tokenizer = tiny.tokenizer("<user>" + tiny.TEMPLATE)  # stands for a BOS that the template writes
    tokenizer.add_special_tokens({"bos_token": "<user>"})
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<user> $A", special_tokens=[("<user>", tokenizer.bos_token_id)]
    )
    ids = ChatFormat(tokenizer).encode("w1").ids
    assert tokenizer.convert_ids_to_tokens(ids)[:3] == ["<user>", "<user>", "w1"]
    without_template = ChatFormat(tiny.tokenizer(template=None))
    without_template.tokenizer.backend_tokenizer.post_processor = tokenizer.backend_tokenizer.post_processor
    encoded = without_template.encode("w1 w2")
    assert without_template.tokenizer.convert_ids_to_tokens(encoded.ids) == ["<user>", "w1", "w2"]
    assert encoded.t_inst == encoded.t_post_inst == 2
