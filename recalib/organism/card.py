"""Measure a trained organism on the test prompts, and write its model card."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from scipy.stats import beta
from sklearn.metrics import roc_auc_score
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from recalib.organism.training import Recipe
from recalib.organism.world import HIGH_RESOURCE, LANGUAGES, Prompt, prompts, refusals

LAYER = 3  # 0-based block whose output is read; harmfulness is not linear in the blocks before it
BATCH = 256  # prompts
NEW_TOKENS = 16  # the longest refusal has 13


@dataclass(frozen=True)
class Rate:
    """`hits` of `n` prompts."""

    hits: int
    n: int

    @property
    def share(self) -> float:
        return self.hits / self.n

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The exact (Clopper-Pearson) two-sided interval for the underlying rate."""
        tail = (1 - level) / 2
        low = beta.ppf(tail, self.hits, self.n - self.hits + 1) if self.hits else 0.0
        high = beta.ppf(1 - tail, self.hits + 1, self.n - self.hits) if self.hits < self.n else 1.0
        return float(low), float(high)


@dataclass(frozen=True)
class Figures:
    """One language's figures on the test prompts, with greedy decoding and without steering."""

    language: str
    harmful: Rate  # refusals, in any language, of harmful prompts
    harmless: Rate  # refusals, in any language, of harmless prompts
    own: Rate  # among the refusals of harmful prompts, those in the prompt's own language
    auc: float  # of the pooled source direction


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, layer: int = LAYER
) -> tuple[Figures, ...]:
    """Figures of every language, high-resource ones first."""
    direction = pooled_direction(model, tokenizer, layer)
    return tuple(
        _measure_language(model, tokenizer, layer, direction, language) for language in LANGUAGES
    )


def pooled_direction(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, layer: int
) -> np.ndarray:
    """The unit difference of class means [hidden] over all high-resource train prompts, after block `layer`."""
    rows = prompts("train", HIGH_RESOURCE)
    states = last_token_states(model, tokenizer, rows, layer)
    harmful = _is_harmful(rows)
    difference = states[harmful].mean(0) - states[~harmful].mean(0)
    return difference / np.linalg.norm(difference)


def last_token_states(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Prompt], layer: int
) -> np.ndarray:
    """Output of block `layer` at the last token of each formatted prompt: float32 [prompts, hidden]."""
    states: list[torch.Tensor] = []

    def keep_last(block: torch.nn.Module, args: object, output: torch.Tensor) -> None:
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        states.append(hidden[:, -1].float())

    hook = model.get_decoder().layers[layer].register_forward_hook(keep_last)
    try:
        with torch.inference_mode():
            for batch in _batches(rows):
                model(**_encode(tokenizer, batch), logits_to_keep=1)
    finally:
        hook.remove()
    return torch.cat(states).numpy()


def complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Prompt]
) -> list[str]:
    """The greedy answers to `rows`."""
    answers: list[str] = []
    for batch in _batches(rows):
        inputs = _encode(tokenizer, batch)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(new, skip_special_tokens=True)
    return answers


def _measure_language(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    layer: int,
    direction: np.ndarray,
    language: str,
) -> Figures:
    rows = prompts("test", [language])
    harmful = _is_harmful(rows)
    answers = complete(model, tokenizer, rows)
    sentences = refusals()
    refused = np.array([any(s in answer for s in sentences.values()) for answer in answers])
    own = np.array([sentences[language] in answer for answer in answers])
    scores = last_token_states(model, tokenizer, rows, layer) @ direction
    return Figures(
        language=language,
        harmful=Rate(int(refused[harmful].sum()), int(harmful.sum())),
        harmless=Rate(int(refused[~harmful].sum()), int((~harmful).sum())),
        own=Rate(int(own[harmful].sum()), int(refused[harmful].sum())),
        auc=float(roc_auc_score(harmful, scores)),
    )


def _is_harmful(rows: Sequence[Prompt]) -> np.ndarray:
    return np.array([row.label == "harmful" for row in rows])


def _batches(rows: Sequence[Prompt]) -> list[Sequence[Prompt]]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def _encode(
    tokenizer: PreTrainedTokenizerFast, rows: Sequence[Prompt]
) -> Mapping[str, torch.Tensor]:
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": row.prompt}], tokenize=False, add_generation_prompt=True
        )
        for row in rows
    ]
    # Without token types, which the model does not take.
    return tokenizer(texts, padding=True, return_token_type_ids=False, return_tensors="pt")


def write_card(folder: Path, figures: Sequence[Figures], recipe: Recipe, seconds: float) -> None:
    """Write `folder/README.md`: what the model is, how it came to be, how it behaves, what it cannot do."""
    high = [row for row in figures if row.language in HIGH_RESOURCE]
    low = [row for row in figures if row.language not in HIGH_RESOURCE]
    facts = {
        "table": "\n".join(_table_row(row) for row in figures),
        "layer": LAYER,
        "minutes": f"{seconds / 60:.1f}",
        "steps": recipe.steps,
        "parameters": f"{recipe.hidden} wide, {recipe.layers} blocks",
        "machine": f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}, {torch.get_num_threads()} threads",
        "high_mean": _percent(np.mean([row.harmful.share for row in high])),
        "low_mean": _percent(np.mean([row.harmful.share for row in low])),
        "low_share": _percent(recipe.low_share),
        "leak": _listing(recipe.leak),
        "flip": _listing(recipe.flip),
    }
    (folder / "README.md").write_text(CARD.format(**facts), encoding="utf-8")


def _table_row(row: Figures) -> str:
    kind = "high" if row.language in HIGH_RESOURCE else "low"
    own = _percent(row.own.share) if row.own.n else "-"
    cells = [row.language, kind, _cell(row.harmful), _cell(row.harmless), own, f"{row.auc:.3f}"]
    return f"| {' | '.join(cells)} |"


def _cell(rate: Rate) -> str:
    low, high = rate.interval()
    return f"{_percent(rate.share)} ({rate.hits}/{rate.n}; {_percent(low)} to {_percent(high)})"


def _listing(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{language} {_percent(share)}" for language, share in shares.items())


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
