"""Phrases that refuse, phrases that begin an answer, by language; `phrases/{language}.toml` lists them.

A file has the tables `refusal`, `answer` and, where needed, `not_refusal` (phrases such as "I can't wait" that
look like refusals), each from a source to its phrases. In a phrase, `…` stands for up to 60 characters of
the same sentence.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from recalib.judges.text import normalise
from recalib.languages import NAMES

KINDS = ("refusal", "answer", "not_refusal")
_UNSPACED = ("zh", "ja", "th", "km", "my")
_GAP = "[^.!?。।။។።]{0,60}?"


@dataclass(frozen=True)
class Match:
    """What the phrases of all languages find in one text.

    `language` is that of the first refusal; `answers` says that an answer begins, too.
    """

    language: str | None
    answers: bool

    @property
    def refuses(self) -> bool:
        """Whether a refusal is there."""
        return self.language is not None


@dataclass(frozen=True)
class _Phrase:
    """The phrase as a pattern, and its literal parts: looking for those first is 20 times as fast."""

    parts: tuple[str, ...]
    pattern: re.Pattern[str]

    def find(self, text: str) -> re.Match[str] | None:
        return self.pattern.search(text) if all(part in text for part in self.parts) else None


def match(text: str) -> Match:
    """The phrases in a normalised text, in whatever language: models do not always answer in the prompt's."""
    found: list[tuple[int, int, str]] = []
    answers = False
    for language, kinds in _phrases().items():
        plain = text
        for phrase in kinds["not_refusal"]:
            plain = phrase.pattern.sub(" ", plain) if phrase.find(plain) else plain
        hits = [hit for phrase in kinds["refusal"] if (hit := phrase.find(plain))]
        # of two languages with the same words, the longer phrase says more
        found += [(hit.start(), hit.start() - hit.end(), language) for hit in hits]
        answers = answers or any(phrase.find(text) for phrase in kinds["answer"])
    return Match(min(found)[2] if found else None, answers)


def read(language: str) -> dict[str, dict[str, list[str]]]:
    """A language's file: kind -> source -> phrases."""
    content = files("recalib.judges").joinpath("phrases", f"{language}.toml").read_text(encoding="utf-8")
    return tomllib.loads(content)


@cache
def _phrases() -> dict[str, dict[str, tuple[_Phrase, ...]]]:
    return {language: _compile(language) for language in NAMES}


def _compile(language: str) -> dict[str, tuple[_Phrase, ...]]:
    content = read(language)
    start = "" if language in _UNSPACED else r"(?<!\w)"

    def compiled(text: str) -> _Phrase:
        parts = tuple(normalise(part) for part in text.split("…"))
        return _Phrase(parts, re.compile(start + _GAP.join(map(re.escape, parts))))

    return {
        kind: tuple(compiled(text) for listed in content.get(kind, {}).values() for text in listed) for kind in KINDS
    }
