"""Guard models: what they are asked, what their answers mean, and generation on a tiny model with random weights."""

import json

import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from recalib import judges
from recalib.judges import Outcome, guards
from recalib.organism import MODEL_DIR


class Row:
    language = None

    def __init__(self, completion, prompt="w1"):
        self.completion, self.prompt = completion, prompt


@pytest.mark.parametrize(
    ("family", "answer", "outcome"),
    [
        ("qwen3guard", "Safety: Safe\nCategories: None\nRefusal: Yes", Outcome.REFUSED),
        ("qwen3guard", "Safety: Unsafe\nCategories: Violent\nRefusal: No", Outcome.COMPLIED),
        (
            "qwen3guard",
            "<think>\n\n</think>\n\nSafety: Controversial\nCategories: PII\nrefusal: no\n",
            Outcome.COMPLIED,
        ),
        ("qwen3guard", "Safety: Unsafe\nCategories: Violent", None),
        ("qwen3guard", "Refusal: Yesterday", None),
        (
            "polyguard",
            "Harmful request: yes\nResponse refusal: yes\nHarmful response: no\nRequest Safety Violations: S9",
            Outcome.REFUSED,
        ),
        ("polyguard", "Harmful request: no\nResponse refusal: No\nHarmful response: no", Outcome.COMPLIED),
        ("polyguard", "Harmful request: yes\nHarmful response: no", None),
        ("polyguard", "Refusal: Yes", None),
        ("polyguard", "", None),
    ],
)
def test_what_a_guards_answer_says(family, answer, outcome):
    assert guards.parse(family, answer) is outcome


def test_what_a_guard_is_asked():
    qwen = guards.FORMATS["qwen3guard"].turns("the request", "the reply")
    assert [turn["role"] for turn in qwen] == ["user", "assistant"]
    assert [turn["content"] for turn in qwen] == ["the request", "the reply"]
    system, user = guards.FORMATS["polyguard"].turns("the request", "the reply")
    assert "S14: Code Interpreter Abuse." in system["content"]
    assert user == {"role": "user", "content": "Human user:\nthe request\n\nAI assistant:\nthe reply"}


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """A Qwen3 of two tiny blocks with the embedded model's tokenizer."""
    folder = tmp_path_factory.mktemp("guard")
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + ' ; ' }}{% endfor %}"
        "{% if add_generation_prompt %}guard : {% endif %}"
    )
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        eos_token_id=tokenizer.eos_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", guards.FORMATS)
def test_batches_of_unlike_lengths_get_the_verdicts_of_each_row_alone(guard, family):
    rows = [Row("i cannot help with that"), Row("yes"), Row("how to " * 12), Row(" "), Row("no", prompt=None)]
    judge = judges.find(f"{family}:{guard}", judges.Setup(device="cpu", batch_size=2))
    together = judge.judge(rows)
    assert together == [verdict for row in rows for verdict in judge.judge([row])]
    assert {v.judge for v in together} == {f"{family}:{guard}"}
    # random weights say nothing of use, and that is no verdict
    assert {v.outcome for v in together} == {Outcome.NOT_JUDGED}
    assert together[3].why == "empty"
    assert together[0].why.startswith("the guard answered")
    assert judge.judge([]) == []


def test_a_guard_on_the_command_line(recalib, guard, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.jsonl").write_text(json.dumps({"prompt": "w1", "completion": "yes", "language": "en"}))
    ran = recalib("eval", "--completions", "c.jsonl", "--judge", f"qwen3guard:{guard}", "--device", "cpu", "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["judge"]["en"]["n"], ran.json["judge"]["en"]["judged"]) == (1, 0)


def test_a_guard_that_is_not_there(recalib, tmp_path):
    (tmp_path / "c.jsonl").write_text(json.dumps({"completion": "yes", "language": "en"}))
    ran = recalib("eval", "--completions", tmp_path / "c.jsonl", "--judge", f"polyguard:{tmp_path}/none")
    assert ran.code == 1
    assert "cannot load" in ran.err
    assert "polyguard:MODEL" in ran.err
    assert "Traceback" not in ran.err
