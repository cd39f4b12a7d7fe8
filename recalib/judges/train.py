"""Fitting the built-in judge on labelled completions, and measuring it; `examples/train_judge.py` does both.

The data is a folder that holds `{model}/{language}.{condition}.jsonl` with rows {"row", "response", "refusal"}:
openings of completions and whether they refuse, as released with arXiv 2505.17306. The same data gives the same bytes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recalib import prompts
from recalib.errors import RecalibError
from recalib.judges import builtin, phrases
from recalib.judges.agreement import Counts, count
from recalib.judges.classifier import (
    LANGUAGE_BUCKETS,
    Classifier,
    Identifier,
    language_features,
    refusal_features,
)
from recalib.judges.judge import Outcome, Verdict
from recalib.judges.phrases import Match
from recalib.judges.text import normalise
from recalib.languages import NAMES

REFERENCE = "WildGuard on machine translations, PolyRefuse's harmful test prompts (arXiv 2505.17306)"
REGULARISATION = 10.0
SMOOTHING = 0.05
KNOWN = tuple(NAMES)
FEW = 20
"""A class of fewer rows than this in a language does not weigh as much as the others: it is mostly noise."""


@dataclass(frozen=True)
class Labelled:
    """One labelled completion; `row` is its prompt's number, the same for all models and languages."""

    model: str
    language: str
    condition: str
    row: int
    completion: str
    refused: bool
    prompt: None = None


@dataclass(frozen=True)
class Prepared:
    """Labelled completions with their normalised texts and phrases, in one order."""

    rows: tuple[Labelled, ...]
    texts: tuple[str, ...]
    matches: tuple[Match, ...]

    def where(self, keep: Sequence[bool] | np.ndarray) -> "Prepared":
        """Only the rows that `keep` [n] names."""
        index = np.flatnonzero(keep)
        return Prepared(
            tuple(self.rows[i] for i in index),
            tuple(self.texts[i] for i in index),
            tuple(self.matches[i] for i in index),
        )


def read(data: Path) -> tuple[Labelled, ...]:
    """All labelled completions below `data`, sorted by file.

    Raises RecalibError where there are none, and for a language that is not one of the 23.
    """
    rows = []
    for file in sorted(data.glob("*/*.*.jsonl")):
        language, condition, _ = file.name.split(".")
        if language not in KNOWN:
            raise RecalibError(f"{file}: {language!r} is not one of the languages {', '.join(KNOWN)}")
        for line in file.read_text(encoding="utf-8").splitlines():
            value = json.loads(line)
            rows.append(
                Labelled(file.parent.name, language, condition, value["row"], value["response"], bool(value["refusal"]))
            )
    if not rows:
        raise RecalibError(f"{data}: holds no MODEL/LANGUAGE.CONDITION.jsonl")
    return tuple(rows)


def prepare(rows: Sequence[Labelled]) -> Prepared:
    """Normalise every text and look for phrases."""
    texts = tuple(normalise(row.completion) for row in rows)
    return Prepared(tuple(rows), texts, tuple(phrases.match(text) for text in texts))


def fit_identifier(data: Prepared) -> Identifier:
    """Profiles of the 23 languages, and below which likelihood a text is in none of them.

    The package's prompts in all of them come first; a completion adds to the profile of its file's language
    only if those prompts say that it is in it, because models often answer in another.
    """
    starter = prompts.load("starter").prompts
    texts = [normalise(prompt.text) for prompt in starter]
    codes = [prompt.language for prompt in starter]
    named = [row.language for row in data.rows]
    told = Identifier(KNOWN, _profiles(texts, codes), np.full(len(KNOWN), -np.inf)).identify(data.texts, named)
    own = [name if name == code else None for name, code in zip(named, told, strict=True)]
    texts += [text for text, code in zip(data.texts, own, strict=True) if code]
    codes += [code for code in own if code]
    return Identifier(KNOWN, _profiles(texts, codes), _floors(texts, codes))


def _profiles(texts: Sequence[str], codes: Sequence[str]) -> np.ndarray:
    """Log probabilities [languages, buckets] of n-grams, each count raised by SMOOTHING."""
    features = language_features(texts)
    profiles = np.empty((len(KNOWN), LANGUAGE_BUCKETS))
    for i, language in enumerate(KNOWN):
        own = np.flatnonzero([code == language for code in codes])
        sums = np.asarray(features[own].sum(axis=0)).ravel() + SMOOTHING
        profiles[i] = np.log(sums / sums.sum())
    return profiles


def _floors(texts: Sequence[str], codes: Sequence[str]) -> np.ndarray:
    """The likelihood that 1 % of a language's own texts fall below, from profiles of the other half of them."""
    index = np.array([KNOWN.index(code) for code in codes])
    own = np.empty(len(texts))
    for half in (0, 1):
        profiles = _profiles(texts[1 - half :: 2], codes[1 - half :: 2])
        scores = Identifier(KNOWN, profiles, np.empty(0)).scores(texts[half::2])
        own[half::2] = scores[np.arange(len(scores)), index[half::2]]
    return np.array([np.quantile(own[index == i], 0.01) for i in range(len(KNOWN))])


def fit_classifier(data: Prepared) -> Classifier:
    """Logistic regression in which every language and class weighs alike."""
    from sklearn.linear_model import LogisticRegression

    labels = np.array([row.refused for row in data.rows])
    cells = np.array([f"{row.language} {row.refused}" for row in data.rows])
    names, index, sizes = np.unique(cells, return_inverse=True, return_counts=True)
    weights = (1 / np.maximum(sizes, FEW))[index]
    model = LogisticRegression(C=REGULARISATION, max_iter=1000)
    model.fit(refusal_features(data.texts, data.matches), labels, sample_weight=weights * len(cells) / len(names))
    return Classifier(model.coef_[0], float(model.intercept_[0]))


def cross_model(data: Prepared, identifier: Identifier, other_prompts: bool = False) -> list[Verdict]:
    """A verdict on every row by a classifier that saw nothing of the row's model.

    With `other_prompts` it saw nothing of the row's prompt either: it is fitted on half of the prompts and
    judges the other half, both ways. The identifier is that of all rows: it reads no label.
    """
    verdicts: dict[int, Verdict] = {}
    models = np.array([row.model for row in data.rows])
    halves = np.array([row.row % 2 for row in data.rows]) if other_prompts else np.zeros(len(models))
    for model in sorted(set(models)):
        for half in sorted(set(halves)):
            test = (models == model) & (halves == half)
            train = (models != model) & ((halves != half) if other_prompts else True)
            judge = builtin.BuiltinJudge(identifier, fit_classifier(data.where(train)), frozenset(NAMES))
            judged = judge.judge(data.where(test).rows)
            verdicts.update(zip(np.flatnonzero(test).tolist(), judged, strict=True))
    return [verdicts[i] for i in range(len(data.rows))]


def agreement(rows: Sequence[Labelled], verdicts: Sequence[Verdict]) -> dict[str, Counts]:
    """Counts by language, in the order of the 23."""
    pairs: dict[str, list[tuple[Outcome, bool]]] = {code: [] for code in KNOWN}
    for row, verdict in zip(rows, verdicts, strict=True):
        pairs[row.language].append((verdict.outcome, row.refused))
    return {code: count(found) for code, found in pairs.items() if found}


def data_hash(data: Path) -> str:
    """Hex SHA-256 of the labelled files, in order."""
    digest = hashlib.sha256()
    for file in sorted(data.glob("*/*.*.jsonl")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
