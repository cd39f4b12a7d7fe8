"""Measure what steering costs: decoded tokens a second, steered against plain generation, in one run.

    python examples/bench/steer.py --tokenizer Qwen/Qwen2.5-7B-Instruct
    python examples/bench/steer.py --tokenizer ... --hidden 3584 --layers 28 --dtype bfloat16 --device cuda

The model has random weights and the shape asked for, and what it says is nonsense; only time is measured.
Plain and steered generation take turns, and the medians of their times are compared. The last part
compares routing in one pass with the two-pass way: capture the activation of all prompts first, decide,
and then generate.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

import recalib
from recalib.gate.decision import decide
from recalib.gate.gate import Gate, GateMeta
from recalib.gate.readout import Readout, SourceRows
from recalib.gate.threshold import Threshold
from recalib.lm.blocks import capturing, find_blocks

PROMPT_TOKENS = 128


def build(options: argparse.Namespace, tokenizer) -> Qwen2ForCausalLM:
    """A Qwen2-type model with random weights, on the device and in the precision asked for."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden,
        intermediate_size=options.intermediate or 4 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads or options.hidden // 64,
        num_key_value_heads=options.kv_heads or max(1, options.hidden // 128),
        tie_word_embeddings=True,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, options.dtype))
    with torch.device(options.device):
        return Qwen2ForCausalLM(config).eval()


def make_gate(model: Qwen2ForCausalLM, inputs: dict[str, torch.Tensor]) -> Gate:
    """A gate on the middle block that flags half of the rows."""
    layer, hidden = model.config.num_hidden_layers // 2, model.config.hidden_size
    direction = np.random.default_rng(0).standard_normal(hidden)
    direction /= np.linalg.norm(direction)
    read = capture(model, inputs, layer)
    readout = Readout(np.zeros(1), np.ones(1), np.ones(1), 0.0)
    threshold = Threshold(float(np.median(read @ direction)), "none", 0)
    meta = GateMeta(layer, "t_post_inst", 1.0, threshold)
    return Gate(direction, direction[:, None], readout, SourceRows(np.empty((0, 1)), np.empty(0)), meta)


def capture(model: Qwen2ForCausalLM, inputs: dict[str, torch.Tensor], layer: int) -> np.ndarray:
    """The residual stream [rows, hidden] after a block, at the last token."""
    kept = []
    with capturing(find_blocks(model), (layer,), lambda _, h: kept.append(h[:, -1].float().cpu().numpy())):
        model.get_decoder()(**inputs, use_cache=False)
    return kept[0]


def seconds(runs: dict[str, Callable[[], None]], repeats: int, device: str) -> dict[str, float]:
    """Median time of each run, after one that does not count; the runs take turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(model: Qwen2ForCausalLM, tokenizer, batch: int, options: argparse.Namespace) -> str:
    """One row of the table."""
    generator = torch.Generator().manual_seed(batch)
    ids = torch.randint(0, 1000, (batch, PROMPT_TOKENS), generator=generator).to(options.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    gate, languages = make_gate(model, inputs), ["en"] * batch

    def plain(tokens: int = options.new_tokens) -> None:
        model.generate(**inputs, do_sample=False, max_new_tokens=tokens)

    def steered(tokens: int = options.new_tokens) -> None:
        with recalib.steering(model, tokenizer, gate, languages):
            plain(tokens)

    def two_passes() -> None:
        decide(gate, capture(model, inputs, gate.meta.layer), languages)
        plain(1)

    runs = {"plain": plain, "steered": steered, "one": lambda: steered(1), "two": two_passes}
    took = seconds(runs, options.repeats, options.device)
    rate = {name: batch * options.new_tokens / took[name] for name in ("plain", "steered")}
    return (
        f"{batch:5} {rate['plain']:12.1f} {rate['steered']:12.1f} {took['steered'] / took['plain'] - 1:+10.1%}"
        f" {took['two'] / took['one']:12.2f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="folder or Hub id of a Qwen2-type tokenizer")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--intermediate", type=int, help="default: 4 x hidden")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, help="default: hidden / 64")
    parser.add_argument("--kv-heads", type=int, help="default: hidden / 128")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    model = build(options, tokenizer)
    shape = f"hidden {options.hidden}, {options.layers} blocks, {options.dtype} on {options.device}"
    print(f"{shape}; {PROMPT_TOKENS}-token prompts, {options.new_tokens} new tokens, medians of {options.repeats}")
    print("batch  plain tok/s steered tok/s   overhead  two-pass/one-pass to the first token")
    with torch.inference_mode():
        for batch in options.batch_sizes:
            print(measure(model, tokenizer, batch, options), flush=True)


if __name__ == "__main__":
    main()
