"""The organism's tokenizer: one token per word of the lexicons, and a chat template for them."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from recalib.organism.world import Lexicon

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
PAD, UNKNOWN = "<|pad|>", "<|unknown|>"

MAX_TOKENS = 256  # no training text is longer than about 40

CHAT_TEMPLATE = f"""\
{{%- for message in messages -%}}
{{%- if message.role == 'user' -%}}{{{{ '{USER} ' }}}}
{{%- elif message.role == 'assistant' -%}}{{{{ '{ASSISTANT} ' }}}}
{{%- else -%}}{{{{ raise_exception('The organism knows the roles user and assistant only.') }}}}
{{%- endif -%}}
{{{{ message.content | trim }}}} {END}{{{{ ' ' if not loop.last or add_generation_prompt }}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{ '{ASSISTANT}' }}}}{{%- endif -%}}
"""


def build_tokenizer(lexicons: Iterable[Lexicon]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer whose vocabulary is every word of the lexicons, in their order."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    # Punctuation and symbols stand alone, but for the apostrophes and hyphens inside words. Marks
    # (\p{M}), which carry the vowels of Burmese, Khmer and Sinhala and the tones of Yoruba, belong
    # to neither class and stay in their word.
    apart = Regex(r"(?!(?<=\w)['’-]\w)[\p{P}\p{S}]")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(apart, "isolated")]
    )
    special = [PAD, UNKNOWN, USER, ASSISTANT, END]
    words = [word for lexicon in lexicons for sentence in lexicon.sentences() for word in _words(tokenizer, sentence)]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*special, *words]))}
    tokenizer.model = models.WordLevel(vocabulary, unk_token=UNKNOWN)
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=END,
        model_max_length=MAX_TOKENS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of `text`, a sentence or a template; the {places} of a template are left out."""
    for place in ("{verb}", "{object}", "{left}", "{right}"):
        text = text.replace(place, " ")
    normal = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]
