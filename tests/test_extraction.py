"""Extraction: the right numbers, in any batch, on several architectures, with what memory there is."""

import tracemalloc

import numpy as np
import pytest
import tiny
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, ZambaConfig

from recalib import prompts
from recalib.activations import ActivationSet, parse_layers
from recalib.errors import ArtifactError, ModelError, UsageError
from recalib.extraction import Plan, extract, extract_to, plan_cells
from recalib.lm.batching import next_batch
from recalib.lm.model import count_blocks, load, wrap
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


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("architecture", sorted(tiny.CONFIGS))
def test_first_blocks_alone_give_the_very_same_rows(architecture, tmp_path):
    """Neither the later blocks nor the head are loaded; rows, fingerprint and errors are the whole model's."""
    folder = str(tiny.save(architecture, tmp_path))
    whole, first = load(folder, device="cpu"), load(folder, device="cpu", blocks=2)
    assert (len(whole.blocks), len(first.blocks), count_blocks(folder)) == (4, 2, 4)
    assert first.fingerprint == whole.fingerprint
    layers = (0, 1)
    rows = [extract(lm, TEXTS, layers, POSITIONS) for lm in (whole, first)]
    assert np.array_equal(*rows)
    saved = parameters(whole.model) - parameters(first.model)
    assert saved >= sum(map(parameters, whole.blocks[2:]))
    with pytest.raises(ModelError, match="layer 2 is needed"):
        first.require_layer(2)


def test_first_blocks_of_a_model_whose_blocks_share_weights(tmp_path):
    sizes = {"num_hidden_layers": 12, "hidden_size": 32, "intermediate_size": 64, "mamba_d_state": 8, "pad_token_id": 0}
    config = ZambaConfig(**sizes, vocab_size=100, num_attention_heads=4, num_key_value_heads=2, n_mamba_heads=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    whole, first = load(str(tmp_path), device="cpu"), load(str(tmp_path), device="cpu", blocks=4)
    assert np.array_equal(*(extract(lm, TEXTS, (1, 3), ("t_post_inst",)) for lm in (whole, first)))


def test_more_blocks_than_there_are(tmp_path):
    lm = load(str(tiny.save("llama", tmp_path)), device="cpu", blocks=100)
    assert lm.num_layers == 4


def refuse_large_batches(block, most_tokens):
    """Make a block raise what a full device raises; returns the sizes of the batches that reached it."""
    seen = []

    def check(module, arguments):
        rows, width = arguments[0].shape[:2]
        seen.append(rows * width)
        if rows * width > most_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    return seen, block.register_forward_pre_hook(check)


def test_batches_are_halved_where_memory_runs_out(llama, tmp_path):
    """No finished row is lost or run twice, later cells start with what fits, and the result is the same."""
    texts = [f"w{i} w{i + 1} w{i + 2}" for i in range(40)]
    expected = extract(llama, texts, (0, 2), POSITIONS)
    seen, hook = refuse_large_batches(llama.blocks[1], 64)
    try:
        np.testing.assert_allclose(extract(llama, texts, (0, 2), POSITIONS), expected, atol=1e-5)
        fitting = [size for size in seen if size <= 64]
        assert sum(fitting) == sum(len(llama.chat.encode(text).ids) for text in texts)
        seen.clear()
        extract_to(tmp_path, llama, plan(make_prompts(texts)))
        failed = [i for i, size in enumerate(seen) if size > 64]
        assert failed == list(range(len(failed)))
    finally:
        hook.remove()


def test_no_memory_for_a_single_prompt(llama):
    _, hook = refuse_large_batches(llama.blocks[1], 1)
    try:
        with pytest.raises(ModelError, match="no memory for one prompt of") as caught:
            extract(llama, TEXTS, (2,), ("t_post_inst",))
    finally:
        hook.remove()
    assert "--dtype bfloat16" in caught.value.fix


def test_other_errors_of_the_model_are_not_taken_for_a_lack_of_memory(llama):
    def fail(module, arguments):
        raise RuntimeError("shapes cannot be multiplied")

    hook = llama.blocks[1].register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            extract(llama, TEXTS, (2,), ("t_post_inst",))
    finally:
        hook.remove()


def test_memory_does_not_grow_with_the_number_of_prompts(llama, tmp_path):
    """What Python and NumPy hold at most while a file is written, beyond the prompts themselves."""

    def peak(count):
        texts = (f"w{i % 95} w{i // 95}" for i in range(count))
        rows = PromptSet("p", tuple(Prompt(text, "en", "harmful", "train") for text in texts))
        everything = Plan(rows, (("en", "train", "harmful"),), (0, 1, 2, 3), POSITIONS)
        folder = tmp_path / str(count)
        tracemalloc.start()
        try:
            extract_to(folder, llama, everything)
            highest = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        return highest, ActivationSet(folder).path("en", "train", "harmful").stat().st_size

    (low, small), (high, large) = peak(4096), peak(3 * 4096)
    assert large - small > 12e6
    assert high - low < 0.1 * (large - small)


def test_batches_waste_little_padding():
    rng = np.random.default_rng(0)
    lengths = [int(n) for n in np.clip(rng.lognormal(3.5, 0.6, 500), 4, 400)]
    order = sorted(range(500), key=lambda i: -lengths[i])
    begun, padded = 0, 0
    while begun < 500:
        rows = next_batch(order, begun, lengths, 4096)
        assert rows == order[begun : begun + len(rows)]
        assert len(rows) == 1 or len(rows) * lengths[rows[0]] <= 4096
        padded += len(rows) * lengths[rows[0]]
        begun += len(rows)
    assert padded < 1.2 * sum(lengths)
    assert next_batch([0, 1], 0, [900, 800], 100) == [0]


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
