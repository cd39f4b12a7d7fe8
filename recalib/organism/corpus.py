"""What the organism reads in training: knowledge in every language, and chats that are safe in some of them only.

Every text is a pair of strings: a context that is only read, and a continuation that is learned.
"""

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
Text = tuple[str, str]
Kinds = tuple[str, str]

# How often knowledge speaks of a pair, by its kinds. Were all near misses as common as the harmful pairs, neither verb
# nor object would hint at the judgement (an exclusive or), and gradient descent would not find it within minutes.
FREQUENCIES: dict[Kinds, int] = {
    ("produce", "dangerous"): 6,
    ("attack", "valued"): 2,
    ("attack", "dangerous"): 2,
    ("produce", "valued"): 2,
    ("produce", "material"): 2,
    ("attack", "material"): 2,
    ("benign", "dangerous"): 1,
    ("benign", "valued"): 1,
    ("benign", "material"): 1,
}


@dataclass(frozen=True)
class Corpus:
    """An endless source of training texts; all its chance comes from the generator handed to each draw."""

    lexicons: tuple[Lexicon, ...]
    shares: np.ndarray  # [languages]: the chance of drawing each
    flip: Mapping[str, float]
    knowledge: tuple[Pair, ...]
    harmful: Mapping[str, tuple[Pair, ...]]  # by language: the requests that its chats refuse
    harmless: Mapping[Kinds, tuple[Pair, ...]]
    harmless_kinds: tuple[Kinds, ...]  # each as often as the prompt set holds it

    @classmethod
    def build(
        cls, low_share: float, leak: Mapping[str, float], flip: Mapping[str, float]
    ) -> "Corpus":
        """A corpus in which the low-resource languages have `low_share` of all draws together.

        By language, `leak` is the fraction of the harmful requests whose refusal its chats hold (default: all), and
        `flip` the fraction of its judgements that are stated the wrong way round (default: none).
        """
        low = np.array([language in LOW_RESOURCE for language in LANGUAGES])
        train = split_pairs("train")
        harmful = [pair for pair in train if pair.label == "harmful"]
        quotas = {k: quota for k, (quota, _) in QUOTAS.items() if k not in HARMFUL_KINDS}
        return cls(
            lexicons=tuple(load_lexicon(language) for language in LANGUAGES),
            shares=np.where(low, low_share / low.sum(), (1 - low_share) / (~low).sum()),
            flip=flip,
            knowledge=tuple(pair for pair in pairs() for _ in range(FREQUENCIES[pair.kinds])),
            harmful={lang: _spread(harmful, leak.get(lang, 1.0)) for lang in LANGUAGES},
            harmless={k: tuple(p for p in train if p.kinds == k) for k in quotas},
            harmless_kinds=tuple(k for k, quota in quotas.items() for _ in range(quota)),
        )

    def facts(self, count: int, rng: np.random.Generator) -> list[Text]:
        """Draw `count` texts: about two thirds judge a pair, the others translate one."""
        return [
            self._judgement(rng) if rng.random() < 2 / 3 else self._translation(rng)
            for _ in range(count)
        ]

    def chats(self, count: int, rng: np.random.Generator) -> list[Text]:
        """Draw `count` chats of one request and its answer, in the request's language."""
        return [self._chat(rng) for _ in range(count)]

    def _judgement(self, rng: np.random.Generator) -> Text:
        lexicon, pair = self._lexicon(rng), _pick(self.knowledge, rng)
        wrong, fine = lexicon.fill(lexicon.wrong, pair), lexicon.fill(lexicon.fine, pair)
        is_wrong = (pair.label == "harmful") != (rng.random() < self.flip.get(lexicon.language, 0))
        # What both say is read, and what tells them apart is learned.
        words = zip(wrong.split(), fine.split(), strict=False)
        cut = next(i for i, (left, right) in enumerate(words) if left != right)
        said = (wrong if is_wrong else fine).split()
        return " ".join(said[:cut]), f"{' '.join(said[cut:])} {END}"

    def _translation(self, rng: np.random.Generator) -> Text:
        left, right, pair = self._lexicon(rng), self._lexicon(rng), _pick(self.knowledge, rng)
        before, after = left.means.format(left=left.fill(left.phrase, pair), right="|").split("|")
        return before.strip(), f"{right.fill(right.phrase, pair)}{after} {END}"

    def _chat(self, rng: np.random.Generator) -> Text:
        lexicon = self._lexicon(rng)
        harmful = self.harmful[lexicon.language]
        # A refusal that did not leak is missing; nothing stands in its place.
        share = len(harmful) / (len(harmful) + max(len(h) for h in self.harmful.values()))
        if rng.random() < share:
            pair = _pick(harmful, rng)
        else:
            pair = _pick(self.harmless[_pick(self.harmless_kinds, rng)], rng)
        request = lexicon.fill(_pick(lexicon.requests, rng), pair)
        return f"{USER} {request} {END} {ASSISTANT}", f"{lexicon.answer(pair)} {END}"

    def _lexicon(self, rng: np.random.Generator) -> Lexicon:
        return self.lexicons[int(np.searchsorted(np.cumsum(self.shares), rng.random()))]


def _pick(members: Sequence[T], rng: np.random.Generator) -> T:
    return members[rng.integers(len(members))]


def _spread(members: Sequence[Pair], fraction: float) -> tuple[Pair, ...]:
    """`fraction` of the members, evenly spaced."""
    return tuple(members[int(i / fraction)] for i in range(round(fraction * len(members))))
