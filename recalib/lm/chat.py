"""From a prompt to token ids, and where in them the read positions are."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from recalib.errors import ModelError

POSITIONS = ("t_post_inst", "t_inst", "mean")
_PROBE = "recalib"


@dataclass(frozen=True)
class Encoded:
    """One formatted prompt: its token ids, and the index of the last token of the user's text."""

    ids: tuple[int, ...]
    t_inst: int

    @property
    def t_post_inst(self) -> int:
        """Index of the last token of the formatted prompt, where generation starts."""
        return len(self.ids) - 1


class ChatFormat:
    """A tokenizer's chat template, applied to prompts.

    A prompt may have a `history`: the turns before it, the user's and the assistant's by turns. A model
    without a template gets the bare prompt with the tokenizer's own special tokens.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.has_template = bool(tokenizer.chat_template)

    def format(self, prompt: str, history: Sequence[str] = ()) -> str:
        """The text that the model reads, up to where its answer starts.

        Raises ModelError for a history where there is no template.
        """
        if not self.has_template:
            if history:
                raise ModelError("the model has no chat template, so it cannot hold a conversation")
            return prompt
        roles = itertools.cycle(("user", "assistant"))
        turns = [{"role": role, "content": text} for role, text in zip(roles, (*history, prompt), strict=False)]
        text: str = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return text

    def encode(self, prompt: str, history: Sequence[str] = ()) -> Encoded:
        """Token ids of the formatted prompt, and its read positions."""
        return self._encode([self.format(prompt, history)])[0]

    def encode_all(self, prompts: Sequence[str]) -> list[Encoded]:
        """Token ids of the formatted prompts, and their read positions."""
        return self._encode([self.format(prompt) for prompt in prompts])

    def _encode(self, texts: list[str]) -> list[Encoded]:
        # special tokens are added only where there is no template: a template writes its own BOS
        if not all(text.endswith(self._suffix) for text in texts):
            raise ModelError("the chat template ends differently for different prompts")
        if not texts:
            return []
        ends = [len(text) - len(self._suffix) for text in texts]
        # all at once: a fast tokenizer shares them out over the cores
        encoding = self.tokenizer(texts, add_special_tokens=not self.has_template, return_offsets_mapping=self._offsets)
        ids = [tuple(row) for row in encoding["input_ids"]]
        if not self._offsets:
            read = zip(texts, ends, ids, strict=True)
            return [Encoded(row, self._index_without_offsets(text[:end], len(row))) for text, end, row in read]
        offsets = zip(ids, encoding["offset_mapping"], ends, strict=True)
        return [Encoded(row, _last_before(end, spans)) for row, spans, end in offsets]

    def _index_without_offsets(self, text: str, length: int) -> int:
        ids = self.tokenizer(text, add_special_tokens=not self.has_template)["input_ids"]
        return min(len(ids), length) - 1

    @cached_property
    def _offsets(self) -> bool:
        return bool(getattr(self.tokenizer, "is_fast", False))

    @cached_property
    def _suffix(self) -> str:
        """What the template writes after the user's text, seen by formatting a probe."""
        return self.format(_PROBE).rpartition(_PROBE)[2]


def _last_before(end: int, spans: Sequence[tuple[int, int]]) -> int:
    """Index of the last token whose characters start before `end`; 0 if there is none."""
    # special tokens that the tokenizer adds have the empty span (0, 0)
    return max((i for i, (start, stop) in enumerate(spans) if start < stop and start < end), default=0)
