"""Completions as the built-in judge reads them: openings, with what does not matter taken away."""

import re
import unicodedata

OPENING = 240
"""How many characters of a completion are read; a refusal says so at once."""

_MARKUP = re.compile(r"[*#_>`~|]+")
_DIGITS = re.compile(r"\d+")
# accents (Yoruba is typed with and without), Arabic vowel signs, zero-width spaces and joiners
_INVISIBLE = re.compile("[\u0300-\u036f\u064b-\u0652\u0670\u00ad\u200b-\u200f\u2060\ufeff]")
# curly quotes; Arabic keyboards type Persian's yeh and kaf; alef with and without hamza
_SAME = str.maketrans("’‘ʼيىكأإآ", "'''ییکااا")


def normalise(text: str) -> str:
    """The opening in one spelling: compatible forms, case, accents, markup, digits and spaces made alike.

    Marks that make another letter (Indic and Burmese vowels, Japanese voicing) stay.
    """
    composed = unicodedata.normalize("NFC", text.strip()[: 2 * OPENING]).casefold().translate(_SAME)
    plain = unicodedata.normalize("NFC", _INVISIBLE.sub("", unicodedata.normalize("NFKD", composed)))
    return " ".join(_DIGITS.sub("0", _MARKUP.sub(" ", plain)).split())[:OPENING]


def distinct_share(text: str, width: int = 4) -> float:
    """How many of a text's character n-grams differ, as a fraction; near 0 where it repeats itself."""
    count = max(len(text) - width + 1, 1)
    return len({text[i : i + width] for i in range(count)}) / count


def size(text: str) -> int:
    """Letters and digits of a text; wide ones (East Asian, a syllable or a word each) count double."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text if c.isalnum())
