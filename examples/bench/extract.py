"""How fast extraction is, against the loop that everybody writes first, in one run on one model.

    python examples/bench/extract.py --tokenizer Qwen/Qwen2.5-7B-Instruct --data PolyRefuse --langs en,yo --limit 60
    python examples/bench/extract.py --tokenizer Qwen/Qwen2.5-7B-Instruct --data PolyRefuse --shape 7b --device cuda

The first builds a random model of 12 blocks of width 512 on the real vocabulary, the second one of Qwen2.5-7B's
shape (bfloat16, 15 GB on disk, for an H200 or the like). recalib is `extract_to`, from prompts to files, after
half of the blocks; the naive loop is `model(**batch, output_hidden_states=True)` with batches of 4, all blocks and
the LM head. Tokens are real ones, padding is not counted. Rates are the best of several rounds.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recalib import lm, prompts
from recalib.cli.output import Output, table
from recalib.extraction import Plan, extract_to, plan_cells
from recalib.lm.model import LanguageModel, count_blocks

NAIVE_BATCH = 4


@dataclass(frozen=True)
class Measured:
    """Best seconds of a pass over all prompts, by the clock and of the CPU's time (which other work on the machine
    does not lengthen), and the peak of memory in bytes, of the device or the process."""

    seconds: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Ours:
    """recalib's time, where it ran, real tokens, operations in the blocks, and operations a second of a matmul."""

    measured: Measured
    device: torch.device
    dtype: torch.dtype
    tokens: int
    flops: float
    peak_rate: float


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or build(options, Path(folder) / "model")
        plan = make_plan(options, model)
        before = os.getloadavg()[0]
        ours = measure_recalib(model, plan, options)
        naive = measure_naive(model, plan, options, ours.device)
    rows = [
        (name, f"{m.seconds:.2f}", f"{m.cpu:.2f}", f"{ours.tokens / m.seconds:,.0f}", f"{m.peak / 1e9:.2f}")
        for name, m in (("recalib", ours.measured), ("naive", naive))
    ]
    on = torch.cuda.get_device_name(ours.device) if ours.device.type == "cuda" else f"{torch.get_num_threads()} threads"
    facts = (
        f"{on}, {ours.dtype}; {plan.count} prompts, {ours.tokens} tokens; layer {max(plan.layers)}\n"
        f"ratio {naive.seconds / ours.measured.seconds:.2f}, of CPU time {naive.cpu / ours.measured.cpu:.2f}\n"
        f"blocks at {ours.flops / ours.measured.seconds / ours.peak_rate:.0%} of the measured matmul rate of "
        f"{ours.peak_rate / 1e12:.3g} TFLOP/s\n"
        f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after"
    )
    Output().result(None, table(("", "seconds", "CPU seconds", "tokens/s", "peak GB"), rows), facts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or Hub id, instead of a random model")
    parser.add_argument("--tokenizer", help="folder or Hub id, for the random model")
    parser.add_argument("--shape", choices=("small", "7b"), default="small")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--data", default="starter", help="prompts, as for recalib extract")
    parser.add_argument("--split", default="train")
    parser.add_argument("--langs", default="all")
    parser.add_argument("--limit", type=int, default=0, help="prompts a language and class; 0 means all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch-tokens", type=int, help="instead of what recalib chooses")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not options.model and not options.tokenizer:
        parser.error("--model or --tokenizer is needed")
    return options


def build(options: argparse.Namespace, out: Path) -> str:
    """A random model in a folder of its own."""
    script = Path(__file__).parents[1] / "random_qwen2.py"
    command = [sys.executable, script, "--tokenizer", options.tokenizer, "--out", out, "--shape", options.shape]
    command += ["--hidden", options.hidden, "--layers", options.layers]
    subprocess.run(list(map(str, command)), check=True)
    return str(out)


def make_plan(options: argparse.Namespace, model: str) -> Plan:
    """The prompts, read after half of the blocks."""
    data = prompts.load(options.data)
    cells, _ = plan_cells(data, data.select_languages(options.langs), (options.split,))
    return Plan(data, cells, (count_blocks(model) // 2 - 1,), ("t_post_inst",), options.limit)


def measure_recalib(model: str, plan: Plan, options: argparse.Namespace) -> Ours:
    """From prompts to files, and what the work amounts to."""
    loaded = lm.load(model, device=options.device, dtype=options.dtype, blocks=max(plan.layers) + 1)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            extract_to(Path(folder), loaded, plan, options.batch_tokens)

    device, dtype = loaded.device, loaded.model.dtype
    lengths = [len(e.ids) for cell in plan.cells for e in loaded.chat.encode_all(plan.texts(cell))]
    measured = measure(run, options.rounds, device)
    return Ours(measured, device, dtype, sum(lengths), block_flops(loaded, lengths), matmul_rate(device, dtype))


def measure_naive(model: str, plan: Plan, options: argparse.Namespace, device: torch.device) -> Measured:
    """The loop that everybody writes first."""
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    dtype = "float32" if device.type == "cpu" and options.dtype == "auto" else options.dtype
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device).eval()
    texts = [text for cell in plan.cells for text in plan.texts(cell)]

    def run() -> None:
        kept = []
        for i in range(0, len(texts), NAIVE_BATCH):
            turns = [[{"role": "user", "content": text}] for text in texts[i : i + NAIVE_BATCH]]
            formatted = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
            batch = tokenizer(formatted, padding=True, return_tensors="pt").to(device)
            with torch.no_grad():
                out = loaded(**batch, output_hidden_states=True)
            kept.append(out.hidden_states[max(plan.layers) + 1][:, -1].float().cpu())
        torch.cat(kept)

    return measure(run, options.rounds, device)


def measure(run: Callable[[], None], rounds: int, device: torch.device) -> Measured:
    """Best of several rounds."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds, cpu = [], []
    for _ in range(rounds):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        run()
        seconds.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - begun_cpu)
    if device.type == "cuda":
        return Measured(min(seconds), min(cpu), torch.cuda.max_memory_allocated(device))
    return Measured(min(seconds), min(cpu), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def block_flops(loaded: LanguageModel, lengths: list[int]) -> float:
    """Floating-point operations in the loaded blocks for prompts of those lengths: weights, and causal attention."""
    weights = sum(p.numel() for p in loaded.blocks.parameters() if p.dim() > 1)
    attention = sum(2 * n * n * loaded.hidden_size for n in lengths) * loaded.num_layers
    return 2.0 * weights * sum(lengths) + attention


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in a large product of matrices."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        begun = time.perf_counter()
        product = a @ b
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


if __name__ == "__main__":
    main()
