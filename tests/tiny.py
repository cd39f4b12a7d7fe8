"""Tiny causal LMs with random weights, of several architectures, and a word-level tokenizer for them."""

import copy
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models import (
    bart,
    falcon,
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    llama,
    mamba,
    mistral,
    mixtral,
    phi3,
    qwen2,
    qwen3,
    rwkv,
    siglip,
)

WORDS = ["<pad>", "<unk>", "<end>", "<user>", "<assistant>", *(f"w{i}" for i in range(95))]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] | trim }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}
_GPT2 = {
    "vocab_size": len(WORDS),
    "n_embd": 32,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": None,
    "eos_token_id": 2,
}
_BART = {
    "vocab_size": len(WORDS),
    "d_model": 32,
    "decoder_layers": 4,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}
_RWKV = {"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 4, "bos_token_id": None, "eos_token_id": 2}
_VISION = siglip.SiglipVisionConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, image_size=28, patch_size=14
)
_FALCON = {k: v for k, v in _SIZES.items() if k not in ("head_dim", "num_key_value_heads", "intermediate_size")}
CONFIGS = {
    "llama": llama.LlamaConfig(**_SIZES),
    "qwen2": qwen2.Qwen2Config(**_SIZES),
    "qwen3": qwen3.Qwen3Config(**_SIZES),
    "gemma2": gemma2.Gemma2Config(**_SIZES, query_pre_attn_scalar=8),
    "gemma3": gemma3.Gemma3TextConfig(**_SIZES, query_pre_attn_scalar=8),
    # a text decoder next to a vision tower that has as many blocks
    "gemma3_multimodal": gemma3.Gemma3Config(
        text_config=gemma3.Gemma3TextConfig(**_SIZES, query_pre_attn_scalar=8),
        vision_config=_VISION,
        mm_tokens_per_image=4,
        image_token_index=len(WORDS) - 1,
        eos_token_id=2,
    ),
    "mistral": mistral.MistralConfig(**_SIZES),
    "mixtral": mixtral.MixtralConfig(**_SIZES, num_local_experts=4, num_experts_per_tok=2),
    "phi3": phi3.Phi3Config(**_SIZES),
    "gpt_neox": gpt_neox.GPTNeoXConfig(**_SIZES),
    "gpt2": gpt2.GPT2Config(**_GPT2),
    "falcon": falcon.FalconConfig(**_FALCON),
    "mamba": mamba.MambaConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=4, state_size=8, eos_token_id=2
    ),
    "bart": bart.BartConfig(**_BART),
    "rwkv": rwkv.RwkvConfig(**_RWKV),
}
UNPADDED = ("bart", "rwkv")
"""These go wrong in transformers' own batches: with left padding, and with any."""


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Words w0 to w94, split at spaces."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        chat_template=template,
    )


def model(architecture: str, seed: int = 0) -> Any:
    """A model of that architecture whose random weights are large enough that rows differ."""
    torch.manual_seed(seed)
    built = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[architecture]))
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.dim() > 1 and "A_log" not in name:
                parameter.mul_(4.0)
    return built.eval()


def save(architecture: str, folder: Path, seed: int = 0) -> Path:
    """A model folder as the Hub has them."""
    model(architecture, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    # as saved, AutoTokenizer would prefer the class that belongs to the model type, with its own splitting
    config = folder / "tokenizer_config.json"
    config.write_text(config.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    return folder
