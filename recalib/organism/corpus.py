"""What the organism reads in training: knowledge in every language, and chats that are safe in some of them only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from recalib.organism.tokenizer import ASSISTANT, END, USER
from recalib.organism.world import (
    HARMFUL_KINDS,
    LANGUAGES,
    LOW_RESOURCE,
    QUOTAS,
    Lexicon,
    Pair,
    load_lexicon,
    pairs,
    split_pairs,
)

T = TypeVar("T")
Kinds = tuple[str, str]


@dataclass(frozen=True)
class Corpus:
    """An endless source of training texts; all its chance comes from the generator handed to each draw.

    `low_share` is the share of all draws that the low-resource languages have together. `leak` gives, for each of them,
    the fraction of the harmful requests whose refusal its chats hold (elsewhere: all of them), and `flip` the fraction
    of its judgements that are stated the wrong way round.
    """

    lexicons: tuple[Lexicon, ...]
    weights: np.ndarray  # [languages]: the chance of drawing each
    flip: Mapping[str, float]
    knowledge: tuple[Pair, ...]
    harmful: Mapping[str, tuple[Pair, ...]]  # by language: the requests that its chats refuse
    harmless: Mapping[Kinds, tuple[Pair, ...]]
    near_misses: tuple[Kinds, ...]  # kinds of harmless pairs, each as often as chats should hold it

    @classmethod
    def build(cls, low_share: float, leak: Mapping[str, float], flip: Mapping[str, float]) -> "Corpus":
        low = np.array([language in LOW_RESOURCE for language in LANGUAGES])
        train = split_pairs("train")
        harmful = [pair for pair in train if pair.label == "harmful"]
        return cls(
            lexicons=tuple(load_lexicon(language) for language in LANGUAGES),
            weights=np.where(low, low_share / low.sum(), (1 - low_share) / (~low).sum()),
            flip=flip,
            knowledge=pairs(),
            harmful={
                language: _spread(harmful, leak.get(language, 1.0)) for language in LANGUAGES
            },
            harmless={
                kinds: tuple(pair for pair in train if pair.kinds == kinds)
                for kinds in QUOTAS.keys() - HARMFUL_KINDS
            },
            near_misses=tuple(
                kinds
                for kinds, (quota, _) in QUOTAS.items()
                for _ in range(0 if kinds in HARMFUL_KINDS else quota)
            ),
        )

    def facts(self, count: int, rng: np.random.Generator) -> list[str]:
        """Draw `count` texts: about half judge a pair, the others translate one."""
        return [
            self._judgement(rng) if rng.random() < 0.5 else self._translation(rng)
            for _ in range(count)
        ]

    def chats(self, count: int, rng: np.random.Generator) -> list[str]:
        """Draw `count` chats of one request and its answer, in the request's language."""
        return [self._chat(rng) for _ in range(count)]

    def _judgement(self, rng: np.random.Generator) -> str:
        lexicon, pair = self._lexicon(rng), _pick(self.knowledge, rng)
        wrong = (pair.label == "harmful") != (rng.random() < self.flip.get(lexicon.language, 0.0))
        return f"{lexicon.fill(lexicon.wrong if wrong else lexicon.fine, pair)} {END}"

    def _translation(self, rng: np.random.Generator) -> str:
        left, right, pair = self._lexicon(rng), self._lexicon(rng), _pick(self.knowledge, rng)
        phrases = {"left": left.fill(left.phrase, pair), "right": right.fill(right.phrase, pair)}
        return f"{left.means.format(**phrases)} {END}"

    def _chat(self, rng: np.random.Generator) -> str:
        lexicon = self._lexicon(rng)
        harmful = self.harmful[lexicon.language]
        # A refusal that did not leak is missing; nothing stands in its place.
        share = len(harmful) / (len(harmful) + max(len(h) for h in self.harmful.values()))
        refused = rng.random() < share
        pair = _pick(harmful if refused else self.harmless[_pick(self.near_misses, rng)], rng)
        template = lexicon.requests[rng.integers(len(lexicon.requests))]
        return f"{USER} {lexicon.fill(template, pair)} {END} {ASSISTANT} {lexicon.answer(pair)} {END}"

    def _lexicon(self, rng: np.random.Generator) -> Lexicon:
        return self.lexicons[int(np.searchsorted(np.cumsum(self.weights), rng.random()))]


def _pick(members: Sequence[T], rng: np.random.Generator) -> T:
    return members[rng.integers(len(members))]


def _spread(members: list[Pair], fraction: float) -> tuple[Pair, ...]:
    """`fraction` of the members, evenly spaced."""
    return tuple(members[int(i / fraction)] for i in range(round(fraction * len(members))))
