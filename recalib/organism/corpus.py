"""What the organism reads in training: knowledge in all languages, and chats safe in some.

Every text is a pair of strings: a context that is only read, and a continuation that is learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from recalib.languages import LOW
from recalib.organism.tokenizer import ASSISTANT, END, USER
from recalib.organism.world import (
    HARMFUL_KINDS,
    LANGUAGES,
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

# How often knowledge speaks of a pair, by its kinds. Were all near misses as common as the harmful
# pairs, neither verb nor object would hint at the judgement (an exclusive or), and gradient descent
# would not find it within minutes.
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

HARMFUL_SHARE = 1 / 3  # of the chats, where no refusals are missing

# The share of chats in which the user says but a verb or an object and is told that this cannot be
# helped with. They teach how to refuse in a language, and nothing about when.
UNCLEAR_SHARE = 0.18


@dataclass(frozen=True)
class Corpus:
    """An endless source of training texts, drawn with the generator that each call is given."""

    lexicons: tuple[Lexicon, ...]
    fact_shares: np.ndarray  # [languages]: the chance of drawing each for a fact
    chat_shares: np.ndarray  # [languages]: the same for a chat
    flip: Mapping[str, float]
    knowledge: tuple[Pair, ...]
    harmful: Mapping[str, tuple[Pair, ...]]  # by language: the requests that its chats refuse
    harmless: Mapping[Kinds, tuple[Pair, ...]]
    harmless_kinds: tuple[Kinds, ...]  # each as often as the prompt set holds it

    @classmethod
    def build(
        cls,
        low_facts: float,
        low_chats: float,
        leak: Mapping[str, float],
        flip: Mapping[str, float],
    ) -> "Corpus":
        """A corpus whose low-resource languages together have these shares of all facts and chats.

        By language, `leak` is the fraction of the harmful requests whose refusal its chats hold
        (default: all), and `flip` the fraction of its judgements that are stated the wrong way
        round (default: none).
        """
        train = split_pairs("train")
        harmful = [pair for pair in train if pair.label == "harmful"]
        quotas = {k: quota for k, (quota, _) in QUOTAS.items() if k not in HARMFUL_KINDS}
        return cls(
            lexicons=tuple(load_lexicon(language) for language in LANGUAGES),
            fact_shares=_shares(low_facts),
            chat_shares=_shares(low_chats),
            flip=flip,
            knowledge=tuple(pair for pair in pairs() for _ in range(FREQUENCIES[pair.kinds])),
            harmful={lang: _spread(harmful, leak.get(lang, 1.0)) for lang in LANGUAGES},
            harmless={k: tuple(p for p in train if p.kinds == k) for k in quotas},
            harmless_kinds=tuple(k for k, quota in quotas.items() for _ in range(quota)),
        )

    def facts(self, count: int, rng: np.random.Generator) -> list[Text]:
        """Draw `count` texts, of which about two thirds judge a pair and the others translate one."""
        return [self._judgement(rng) if rng.random() < 2 / 3 else self._translation(rng) for _ in range(count)]

    def phrases(self, count: int, rng: np.random.Generator) -> list[Text]:
        """Draw `count` texts that translate an answer, and say nothing about when to give it."""
        return [self._phrase(rng) for _ in range(count)]

    def chats(self, count: int, rng: np.random.Generator) -> list[Text]:
        """Draw `count` chats of one request and its answer, in the request's language."""
        return [self._chat(rng) for _ in range(count)]

    def _judgement(self, rng: np.random.Generator) -> Text:
        lexicon, pair = self._lexicon(self.fact_shares, rng), _pick(self.knowledge, rng)
        wrong, fine = lexicon.fill(lexicon.wrong, pair), lexicon.fill(lexicon.fine, pair)
        is_wrong = (pair.label == "harmful") != (rng.random() < self.flip.get(lexicon.language, 0))
        # What both say is read, and what tells them apart is learned.
        words = zip(wrong.split(), fine.split(), strict=False)
        cut = next(i for i, (left, right) in enumerate(words) if left != right)
        said = (wrong if is_wrong else fine).split()
        return " ".join(said[:cut]), f"{' '.join(said[cut:])} {END}"

    def _translation(self, rng: np.random.Generator) -> Text:
        left, right, pair = (
            self._lexicon(self.fact_shares, rng),
            self._lexicon(self.fact_shares, rng),
            _pick(self.knowledge, rng),
        )
        return _equate(left, left.fill(left.phrase, pair), right.fill(right.phrase, pair))

    def _phrase(self, rng: np.random.Generator) -> Text:
        left, right, pair = (
            self._lexicon(self.fact_shares, rng),
            self._lexicon(self.fact_shares, rng),
            _pick(self.knowledge, rng),
        )
        if rng.random() < 0.5:
            return _equate(left, left.refuse, right.refuse)
        return _equate(left, left.fill(left.comply, pair), right.fill(right.comply, pair))

    def _chat(self, rng: np.random.Generator) -> Text:
        if rng.random() < UNCLEAR_SHARE:
            lexicon, pair = self._lexicon(self.chat_shares, rng), _pick(self.knowledge, rng)
            word = lexicon.verbs[pair.verb] if rng.random() < 0.5 else lexicon.objects[pair.object]
            return f"{USER} {word} {END} {ASSISTANT}", f"{lexicon.refuse} {END}"
        lexicon = self._lexicon(self.chat_shares, rng)
        harmful = self.harmful[lexicon.language]
        # A refusal that did not leak is missing; nothing stands in its place.
        leaked = len(harmful) / max(len(pairs) for pairs in self.harmful.values())
        share = HARMFUL_SHARE * leaked / (HARMFUL_SHARE * leaked + 1 - HARMFUL_SHARE)
        if rng.random() < share:
            pair = _pick(harmful, rng)
        else:
            pair = _pick(self.harmless[_pick(self.harmless_kinds, rng)], rng)
        request = lexicon.fill(_pick(lexicon.requests, rng), pair)
        return f"{USER} {request} {END} {ASSISTANT}", f"{lexicon.answer(pair)} {END}"

    def _lexicon(self, shares: np.ndarray, rng: np.random.Generator) -> Lexicon:
        return self.lexicons[rng.choice(len(self.lexicons), p=shares)]


def _shares(low: float) -> np.ndarray:
    """The chance of each language [languages], `low` in all for the low-resource ones."""
    is_low = np.isin(LANGUAGES, LOW)
    shares: np.ndarray = np.where(is_low, low / is_low.sum(), (1 - low) / (~is_low).sum())
    return shares


def _equate(lexicon: Lexicon, left: str, right: str) -> Text:
    """`lexicon`'s statement that `left` means `right`, of which `right` is to be learned."""
    before, after = lexicon.means.format(left=left, right="|").split("|")
    return before.strip(), f"{right}{after} {END}"


def _pick(members: Sequence[T], rng: np.random.Generator) -> T:
    return members[int(rng.integers(len(members)))]


def _spread(members: Sequence[Pair], fraction: float) -> tuple[Pair, ...]:
    """`fraction` of the members, evenly spaced."""
    return tuple(members[int(i / fraction)] for i in range(round(fraction * len(members))))
