"""Build a Qwen2-type model with random weights on a real tokenizer, for trying the pipeline out.

    python examples/random_qwen2.py --tokenizer Qwen/Qwen2.5-7B-Instruct --out random-qwen2

The model answers nonsense, but everything around it is real: vocabulary, chat template, file layout. It is
what the tests run the command line on.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM


def build(tokenizer_source: str, out: Path, layers: int = 6, hidden: int = 256, seed: int = 0) -> None:
    """Write a random model of that many blocks and that width, and the tokenizer, to `out`."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_source)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    Qwen2ForCausalLM(config).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="folder or Hub id")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    build(options.tokenizer, options.out, options.layers, options.hidden, options.seed)


if __name__ == "__main__":
    main()
