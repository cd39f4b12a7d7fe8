"""Extraction: the right numbers, in any batch, on several architectures, and safe against kills."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
import torch
from filelock import FileLock

from recalib import prompts
from recalib.activations import ActivationSet, parse_layers
from recalib.errors import ArtifactError, ModelError, UsageError
from recalib.extraction import Plan, extract, extract_to, plan_cells
from recalib.lm.model import wrap
from recalib.prompts import Prompt, PromptSet

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w10 w11"]
POSITIONS = ("t_post_inst", "t_inst", "mean")


@pytest.fixture(scope="module", params=sorted(tiny.CONFIGS))
def lm(request):
    return wrap(tiny.model(request.param), tiny.tokenizer())


@pytest.fixture(scope="module")
def llama():
    return wrap(tiny.model("llama"), tiny.tokenizer())


def make_prompts(texts=TEXTS, name="p"):
    return PromptSet(
        name,
        tuple(
            Prompt(text, language, label, "train")
            for language in ("en", "sw")
            for label in prompts.LABELS
            for text in texts
        ),
    )


def plan(data, layers=(0, 2), limit=0):
    cells, _ = plan_cells(data, data.languages, ("train",))
    return Plan(data, cells, layers, ("t_post_inst",), limit)


def test_equals_the_blocks_outputs_of_a_plain_forward_pass(lm):
    """Against the model's own forward pass, one prompt at a time, with no padding."""
    seen: dict[int, torch.Tensor] = {}
    handles = [
        block.register_forward_hook(
            lambda module, inputs, output, i=i: seen.__setitem__(i, output if torch.is_tensor(output) else output[0])
        )
        for i, block in enumerate(lm.blocks)
    ]
    layers = tuple(range(lm.num_layers))
    try:
        expected = []
        for text in TEXTS:
            encoded = lm.chat.encode(text)
            with torch.no_grad():
                lm.model(torch.tensor([encoded.ids]))
            at = [encoded.t_post_inst, encoded.t_inst]
            expected.append([[*(seen[i][0, j] for j in at), seen[i][0].mean(0)] for i in layers])
    finally:
        for handle in handles:
            handle.remove()
    reference = np.array([[[v.numpy() for v in layer] for layer in row] for row in expected])
    for budget in (1, 1000):
        ours = extract(lm, TEXTS, layers, POSITIONS, batch_tokens=budget)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, reference, rtol=1e-3, atol=1e-4)


def test_later_blocks_and_the_head_never_run(llama):
    ran = []
    modules = {"block 3": llama.blocks[3], "norm": llama.model.model.norm, "head": llama.model.lm_head}
    handles = [m.register_forward_hook(lambda *_, n=name: ran.append(n)) for name, m in modules.items()]
    extract(llama, TEXTS, (0, 2), ("t_post_inst",))
    for handle in handles:
        handle.remove()
    assert ran == []
    assert not any(module._forward_hooks for module in llama.model.modules())


def test_half_precision_that_overflows_is_an_error():
    model = tiny.model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    with pytest.raises(ModelError, match="NaN or infinite"):
        extract(wrap(model, tiny.tokenizer()), TEXTS, (2,), ("t_post_inst",))


def test_files_resume_and_hold_what_was_extracted(tmp_path, llama):
    data = make_prompts()
    assert extract_to(tmp_path, llama, plan(data)) == 0
    folder = ActivationSet(tmp_path)
    assert len(folder.cells) == 4
    cell = folder.load("sw", "train", "harmful", 2, "t_post_inst")
    np.testing.assert_allclose(cell.rows, extract(llama, TEXTS, (2,), ("t_post_inst",))[:, 0, 0], atol=1e-6)
    assert list(cell.prompt_ids) == [prompts.prompt_id(text) for text in TEXTS]
    path = folder.path("en", "train", "harmless")
    before = path.stat().st_mtime_ns
    folder.path("en", "train", "harmful").unlink()
    truncated = folder.path("sw", "train", "harmless")
    truncated.write_bytes(truncated.read_bytes()[:100])
    assert extract_to(tmp_path, llama, plan(data)) == 2
    assert path.stat().st_mtime_ns == before
    assert len(ActivationSet(tmp_path).load("sw", "train", "harmless", 0, "t_post_inst").rows) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": make_prompts(["w1", "w2"])}, "other prompts hash"),
        ({"layers": (1,)}, "other layers"),
        ({"limit": 2}, "other prompts hash"),
    ],
)
def test_finished_files_of_another_extraction_are_not_touched(tmp_path, llama, change, message):
    extract_to(tmp_path, llama, plan(make_prompts()))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.safetensors")}
    options = {"data": make_prompts(), **change}
    with pytest.raises(ArtifactError, match=message) as caught:
        extract_to(tmp_path, llama, plan(**options))
    assert "--overwrite" in caught.value.fix
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.safetensors")} == before
    extract_to(tmp_path, llama, plan(**options), overwrite=True)
    assert ActivationSet(tmp_path).meta.layers == options.get("layers", (0, 2))


def test_files_of_another_model_are_refused(tmp_path, llama):
    extract_to(tmp_path, llama, plan(make_prompts()))
    with pytest.raises(ArtifactError, match="Qwen2ForCausalLM against LlamaForCausalLM"):
        extract_to(tmp_path, wrap(tiny.model("qwen2"), tiny.tokenizer()), plan(make_prompts()))


def test_two_extractions_into_one_folder(tmp_path, llama):
    with FileLock(tmp_path / ".lock"), pytest.raises(ArtifactError, match="another extraction"):
        extract_to(tmp_path, llama, plan(make_prompts()))


def test_killed_extractions_resume_to_the_same_files(tmp_path):
    """kill -9 at several moments; what is left is whole, and the last run completes it."""
    tiny.save("llama", tmp_path / "model")
    rows = [
        f'{{"prompt": "w{i} w{j}", "language": "en", "label": "{label}"}}'
        for i in range(20)
        for j in range(20)
        for label in prompts.LABELS
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(rows))
    command = [
        sys.executable,
        "-m",
        "recalib",
        "extract",
        "--model",
        tmp_path / "model",
        "--data",
        tmp_path / "p.jsonl",
        "--splits",
        "train",
        "--batch-tokens",
        "32",
        "--quiet",
    ]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0", "OMP_NUM_THREADS": "1"}

    def start(out):
        return subprocess.Popen([*map(str, command), "--out", str(out)], env=environment, stdout=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    killed = 0
    for moment in (0.0, 0.2, 0.5):
        process = start(tmp_path / "killed")
        deadline = time.monotonic() + 60
        while not (tmp_path / "killed").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        for path in (tmp_path / "killed").rglob("*.safetensors"):
            assert path.read_bytes() == (tmp_path / "whole" / path.relative_to(tmp_path / "killed")).read_bytes()
    assert killed > 0
    assert start(tmp_path / "killed").wait() == 0
    files = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*.safetensors")}
    again = {p.relative_to(tmp_path / "killed"): p.read_bytes() for p in (tmp_path / "killed").rglob("*.safetensors")}
    assert files == again
    assert len(files) == 2
    assert not list((tmp_path / "killed").rglob("*.tmp"))


def test_parsing_layers():
    assert parse_layers("all", 3) == (0, 1, 2)
    assert parse_layers("1", 3) == (1,)
    assert parse_layers("10:13,2, 11", 20) == (2, 10, 11, 12)
    for spec in ("", "x", "-1", "3:3", "1.5", "2:"):
        with pytest.raises(UsageError):
            parse_layers(spec, 20)
    with pytest.raises(UsageError, match="the model has 3 blocks, 0 to 2"):
        parse_layers("3", 3)


def test_an_activations_folder_says_what_is_missing(tmp_path, llama):
    with pytest.raises(ArtifactError, match="holds no activations"):
        _ = ActivationSet(tmp_path).cells
    extract_to(tmp_path, llama, plan(make_prompts()))
    folder = ActivationSet(tmp_path)
    with pytest.raises(ArtifactError, match="has no layer 1; it has 0, 2") as caught:
        folder.load("en", "train", "harmful", 1, "t_post_inst")
    assert "--layers 1" in caught.value.fix
    with pytest.raises(UsageError, match="split 'test' is not in"):
        folder.select_languages("en", "test")
