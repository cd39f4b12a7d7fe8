"""The fitted part of the built-in judge: which language a text is in, and whether it refuses.

Both read character n-grams, hashed, so that no vocabulary has to be stored. The arrays come from
`python -m recalib.judges.train`; nothing here is fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from recalib.judges.phrases import Match

REFUSAL_GRAMS, REFUSAL_BUCKETS = (2, 5), 2**18
LANGUAGE_GRAMS, LANGUAGE_BUCKETS = (1, 3), 2**14
LENIENCE = 1.0
"""In nats an n-gram."""


@dataclass(frozen=True)
class Identifier:
    """Naive Bayes on character n-grams.

    `profiles` [languages, buckets] are log probabilities of hashed n-grams, rows in the order of `languages`.
    A text is in none of them if the mean log probability of its n-grams is below the best one's `floors`
    [languages].
    """

    languages: tuple[str, ...]
    profiles: np.ndarray
    floors: np.ndarray

    def identify(self, texts: Sequence[str], declared: Sequence[str | None]) -> list[str | None]:
        """The language of each normalised text, helped by the one that it was asked for in; None where it is like none.

        A text that is most like the declared language need only be roughly like it: short ones vary. One that
        was asked for in a language without a profile may be in that or in English, whatever else it is like.
        """
        if not texts:
            return []
        return [self._language(row, code) for row, code in zip(self.scores(texts), declared, strict=True)]

    def _language(self, scores: np.ndarray, declared: str | None) -> str | None:
        best = int(scores.argmax())
        language = self.languages[best]
        floor = self.floors[best] - (LENIENCE if language == declared else 0)
        possible = declared is None or declared in self.languages or language == "en"
        return language if possible and scores[best] >= floor else None

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Mean log probability of the n-grams [texts, languages]; -inf for a text without any."""
        counts = language_features(texts)
        totals = np.asarray(counts.sum(axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):
            means = (counts @ self.profiles.T) / totals
        return np.where(totals > 0, means, -np.inf)


@dataclass(frozen=True)
class Classifier:
    """Logistic regression: `weights` [buckets + phrase features] of `refusal_features`, and `bias`."""

    weights: np.ndarray
    bias: float

    def refuses(self, texts: Sequence[str], matches: Sequence[Match]) -> np.ndarray:
        """Whether each normalised text with its phrases refuses [texts]."""
        if not texts:
            return np.empty(0, dtype=bool)
        decided: np.ndarray = refusal_features(texts, matches) @ self.weights + self.bias > 0
        return decided


def refusal_features(texts: Sequence[str], matches: Sequence[Match]) -> Any:
    """Sparse features [texts, buckets + 3]: n-grams of unit norm, then what the phrases found.

    The last three columns: a refusal, the beginning of an answer, both.
    """
    from scipy import sparse

    found = [(m.refuses, m.answers, m.refuses and m.answers) for m in matches]
    grams = _hashing(REFUSAL_GRAMS, REFUSAL_BUCKETS, "l2").transform(texts)
    return sparse.hstack([grams, sparse.csr_matrix(np.array(found, dtype=float))], format="csr")


def language_features(texts: Sequence[str]) -> Any:
    """Sparse 0/1 features [texts, buckets] that tell languages apart."""
    return _hashing(LANGUAGE_GRAMS, LANGUAGE_BUCKETS, None).transform(texts)


@cache
def _hashing(grams: tuple[int, int], buckets: int, norm: str | None) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char",
        ngram_range=grams,
        n_features=buckets,
        lowercase=False,
        binary=True,
        norm=norm,
        alternate_sign=norm is not None,
    )
