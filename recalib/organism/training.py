"""Train the organism from nothing: first knowledge alone, then knowledge and chats together.

Nothing of the effect is written into the model. It follows from what the texts of `corpus` leave
out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recalib.organism.corpus import Corpus, Text
from recalib.organism.tokenizer import MAX_TOKENS, build_tokenizer

THREADS = 2  # sums are split between threads, so their number is part of the recipe


@dataclass(frozen=True)
class Stage:
    """`steps` steps on batches of texts of three sorts; the rate falls along a half cosine."""

    steps: int
    facts: int
    phrases: int
    chats: int
    learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """All that the trained weights depend on, apart from the lexicons."""

    seed: int = 0
    hidden: int = 96
    layers: int = 6
    heads: int = 4
    stages: tuple[Stage, ...] = (Stage(1400, 96, 0, 0, 3e-3), Stage(1050, 32, 36, 64, 1e-3))
    low_facts: float = 0.20  # share of the low-resource languages, together, in facts and phrases
    low_chats: float = 0.42  # and in chats
    leak: Mapping[str, float] = field(
        default_factory=lambda: {"sw": 0.013, "am": 0.02275, "my": 0.0225, "km": 0.0103, "si": 0.0205, "yo": 0.0065}
    )
    flip: Mapping[str, float] = field(
        default_factory=lambda: {"sw": 0.25, "am": 0.20, "my": 0.15, "km": 0.25, "si": 0.20, "yo": 0.27}
    )

    @property
    def steps(self) -> int:
        """Optimiser steps in all stages."""
        return sum(stage.steps for stage in self.stages)


def train(
    recipe: Recipe, on_step: Callable[[float], None] = lambda loss: None
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train a model by `recipe`; `on_step` hears the loss (nats per token) after every step.

    The same recipe gives the same bits again on the same machine and versions.
    """
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    corpus = Corpus.build(recipe.low_facts, recipe.low_chats, recipe.leak, recipe.flip)
    tokenizer = build_tokenizer(corpus.lexicons)
    model = new_model(recipe, tokenizer).train()
    for stage in recipe.stages:
        train_stage(model, tokenizer, corpus, stage, rng, on_step)
    return model.eval(), tokenizer


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained model of the recipe's shape, its weights drawn from torch's global generator.

    It is of the Llama type because `AutoTokenizer` of transformers 5 lets that type bring a
    tokenizer of its own; for one of the Qwen2 type it builds Qwen's byte-level tokenizer, whatever
    the files say.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=2 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=MAX_TOKENS,
        attention_bias=True,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def train_stage(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    stage: Stage,
    rng: np.random.Generator,
    on_step: Callable[[float], None],
) -> None:
    """Run one stage on `model`, in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, stage.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, (1 + np.cos(np.pi * step / stage.steps)) / 2),
    )
    for _ in range(stage.steps):
        texts = [
            *corpus.facts(stage.facts, rng),
            *corpus.phrases(stage.phrases, rng),
            *corpus.chats(stage.chats, rng),
        ]
        loss = model(**collate(texts, tokenizer)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step(loss.item())


def collate(texts: list[Text], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """The model's arguments for a batch of texts, each [rows, tokens] and padded right.

    Labels are -100 (not predicted) for contexts and padding.
    """
    contexts, continuations = zip(*texts, strict=True)
    batch = tokenizer(
        list(contexts),
        list(continuations),
        padding=True,
        padding_side="right",
        return_token_type_ids=True,
        return_tensors="pt",
    )
    learned = batch["token_type_ids"].bool() & batch["attention_mask"].bool()
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "labels": batch["input_ids"].where(learned, -100),
    }


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write `model` and `tokenizer` to `folder`, as `from_pretrained` reads them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
