"""Train the organism from nothing: first knowledge alone, then knowledge and chats together.

Nothing of the effect is written into the model. It follows from what the texts of `corpus` leave out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from recalib.organism.corpus import Corpus, Text
from recalib.organism.tokenizer import build_tokenizer

THREADS = 2  # sums are split between threads, so their number is part of the recipe


@dataclass(frozen=True)
class Stage:
    """`steps` optimiser steps on batches of `facts` + `chats` texts; the rate falls to 0 along a half cosine."""

    steps: int
    facts: int
    chats: int
    learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """All that the trained weights depend on, apart from the lexicons."""

    seed: int = 0
    hidden: int = 96
    layers: int = 6
    heads: int = 4
    stages: tuple[Stage, ...] = (Stage(1400, 96, 0, 3e-3), Stage(600, 32, 64, 1e-3))
    low_share: float = 0.10
    leak: Mapping[str, float] = field(
        default_factory=lambda: {
            "sw": 0.30, "am": 0.10, "my": 0.15, "km": 0.20, "si": 0.12, "yo": 0.25
        }
    )  # fmt: skip
    flip: Mapping[str, float] = field(
        default_factory=lambda: {
            "sw": 0.15, "am": 0.20, "my": 0.25, "km": 0.20, "si": 0.25, "yo": 0.20
        }
    )  # fmt: skip

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)


def train(
    recipe: Recipe, on_step: Callable[[float], None] = lambda loss: None
) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """Train a model by `recipe`; `on_step` hears the loss (nats per predicted token) after every step.

    The same recipe gives the same bits again on the same machine and versions.
    """
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    corpus = Corpus.build(recipe.low_share, recipe.leak, recipe.flip)
    tokenizer = build_tokenizer(corpus.lexicons)
    model = new_model(recipe, tokenizer).train()
    for stage in recipe.stages:
        train_stage(model, tokenizer, corpus, stage, rng, on_step)
    return model.eval(), tokenizer


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """An untrained model of the recipe's shape, its weights drawn from torch's global generator."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.hidden * 8 // 3,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",
        dtype="float32",
    )
    return Qwen2ForCausalLM(config)


def train_stage(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    stage: Stage,
    rng: np.random.Generator,
    on_step: Callable[[float], None],
) -> None:
    """Run one stage on `model`, in place."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    warmup = max(1, stage.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, (1 + np.cos(np.pi * step / stage.steps)) / 2),
    )
    for _ in range(stage.steps):
        texts = corpus.facts(stage.facts, rng) + corpus.chats(stage.chats, rng)
        loss = model(**collate(texts, tokenizer)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step(loss.item())


def collate(
    texts: list[Text], tokenizer: PreTrainedTokenizerFast
) -> dict[str, torch.Tensor]:
    """The model's arguments for a batch: input_ids, attention_mask and labels, each [rows, tokens], padded right.

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


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write `model` and `tokenizer` to `folder`, as `from_pretrained` reads them."""
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
