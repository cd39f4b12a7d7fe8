"""The language model: loading it, finding its blocks, formatting chats, running it over prompts."""

from recalib.lm.model import LanguageModel, load

__all__ = ["LanguageModel", "load"]
