"""Build a Qwen2-type model with random weights on a real tokenizer, for trying the pipeline out.

    python examples/random_qwen2.py --tokenizer Qwen/Qwen2.5-7B-Instruct --out random-qwen2
    python examples/random_qwen2.py --tokenizer Qwen/Qwen2.5-7B-Instruct --out random-7b --shape 7b

The model answers nonsense, but everything around it is real: vocabulary, chat template, file layout. It is
what the tests run the command line on, and with the shape of Qwen2.5-7B it takes the time and memory of that.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

SEVEN_B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}


def small(vocabulary: int, layers: int = 6, hidden: int = 256) -> dict[str, int | bool]:
    """The shape of a model of that many blocks and that width."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": max(1, hidden // 128),
        "tie_word_embeddings": True,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="folder or Hub id")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", choices=("small", "7b"), default="small", help="7b: bfloat16, 15 GB")
    parser.add_argument("--layers", type=int, default=6, help="of the small shape")
    parser.add_argument("--hidden", type=int, default=256, help="of the small shape")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    shape = SEVEN_B if options.shape == "7b" else small(len(tokenizer), options.layers, options.hidden)
    config = Qwen2Config(
        **shape,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(options.seed)
    torch.set_default_dtype(torch.bfloat16 if options.shape == "7b" else torch.float32)
    # drawing seven billion numbers takes minutes on a CPU
    with torch.device("cuda" if options.shape == "7b" and torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(config)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
