"""Language codes, their names and resource tiers, as in the paper (arXiv 2606.01196)."""

from collections.abc import Collection

from recalib.errors import UsageError

HIGH = ("en", "de", "fr", "es", "it", "nl", "pl", "ru", "zh", "ja")
MID = ("ar", "ko", "th", "el", "he", "hi", "fa")
LOW = ("sw", "am", "my", "km", "si", "yo")
TIERS = {"high": HIGH, "mid": MID, "low": LOW}

NAMES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "nl": "Dutch",
    "pl": "Polish",
    "ru": "Russian",
    "zh": "Chinese",
    "ja": "Japanese",
    "ar": "Arabic",
    "ko": "Korean",
    "th": "Thai",
    "el": "Greek",
    "he": "Hebrew",
    "hi": "Hindi",
    "fa": "Persian",
    "sw": "Swahili",
    "am": "Amharic",
    "my": "Burmese",
    "km": "Khmer",
    "si": "Sinhala",
    "yo": "Yoruba",
}


def name(code: str) -> str:
    """English name of a language; the code itself where we have none."""
    return NAMES.get(code, code)


def select(spec: str, available: Collection[str], where: str) -> tuple[str, ...]:
    """The languages that `spec` asks for, in its order and without repeats.

    `spec` is a comma-separated mix of codes, tiers (high, mid, low) and `all`. A tier means those of
    its languages that are available; a code must be. `where` names the place for the error message.

    Raises UsageError for a code that is not available and for a spec that selects nothing.
    """
    chosen: dict[str, None] = {}
    for part in (part.strip().lower() for part in spec.split(",")):
        if part == "all":
            chosen.update(dict.fromkeys(available))
        elif part in TIERS:
            chosen.update(dict.fromkeys(code for code in TIERS[part] if code in available))
        elif part in available:
            chosen[part] = None
        elif part:
            raise UsageError(
                f"language {part!r} is not in {where}, which has: {', '.join(sorted(available))}",
                fix="name one of those, a tier (high, mid, low) or all",
            )
    if not chosen:
        raise UsageError(f"{spec!r} selects no language of {where}, which has: {', '.join(sorted(available))}")
    return tuple(chosen)


def select_any(spec: str) -> tuple[str, ...]:
    """As `select`, where any code will do: nothing says which languages there are. `all` is no language."""
    codes = [part.strip().lower() for part in spec.split(",") if part.strip()]
    named = [code for code in codes if code not in TIERS]
    for code in named:
        if code == "all" or not code.replace("-", "").isalnum():
            raise UsageError(f"{code!r} is not a language code", fix="name the languages, as in sw,yo")
    return select(spec, tuple(dict.fromkeys((*NAMES, *named))), "the known languages")
