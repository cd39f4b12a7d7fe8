"""Any causal LM of transformers with random weights, as small as its default config allows.

One rule for every type: numbers in the config, and in its sub-configs, are capped by what their names say they
count. The config class then derives again what depends on them. Where a type refuses that, variants of the
rule are tried in order.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

WORDS = 100
SPECIAL = 28
MAX_PARAMETERS = 100_000_000
_LAYERS = r"layers?$|num_blocks$|per_stack$|^depth"
_CAPS = (  # the first pattern that matches; 4 heads of 16 make a width of 64
    (r"vocab", WORDS + SPECIAL),
    (r"kv_shared_layers", 1),
    (r"topk_group|(n|expert)_groups?$", 1),
    (r"index_topk", 128),
    (r"experts_per_tok|top_?k$|moe_k$", 2),
    (r"experts?$|expert_num", 4),
    (_LAYERS, 4),
    (r"max_|position|context|length|chunk|patch|image|budget|seq_len|block_size", 128),
    (r"qk_head_dim|attention_head_dim", 32),
    (r"head_dim|dim_head|head_size|headdim|d_head|kv_channels|rotary_dim|state|rank", 16),
    (r"kv_heads|key_value_heads|query_groups", 2),
    (r"heads?$|mamba_n_groups|ngroups|o_groups", 4),
    (r"expand$|compress_ratio", 1),
    (r"size|dim|width|d_model|embd|d_inner|dff|d_ff|d_ssm|filters|extent|scalar", 64),
)


class DoesNotRun(Exception):
    """A model was built, but its forward pass over text fails."""


@dataclass(frozen=True)
class Rule:
    """A variant of the rule.

    `layers`: at most so many. `keep_heads`: their numbers and widths stay. `fill`: numbers that the default
    leaves open are given, and an attention layer where it has none. `cut`: lists with an entry per layer are
    cut, and not left to the class to derive. `derive`: so is what its signature leaves open.
    """

    layers: int = 4
    keep_heads: bool = False
    fill: bool = False
    cut: bool = False
    derive: bool = False


RULES = (
    Rule(),
    Rule(cut=True),
    Rule(fill=True),
    Rule(layers=6),
    Rule(layers=12, cut=True),
    Rule(keep_heads=True),
    Rule(keep_heads=True, cut=True, fill=True),
    Rule(derive=True),
)


def build(config_class: Callable[..., Any], runs: Callable[[Any], None]) -> Any:
    """The first model, in eval mode, that a rule builds from the class's default config and that `runs` accepts.

    If none does, raises DoesNotRun for the first that was built, or what kept the first rule from building.
    """
    kept: list[Exception] = []
    default = config_class()
    for rule in RULES:
        try:
            model = _model(config_class(**shrink(default, rule)))
        except Exception as error:  # noqa: BLE001 - whatever a type's code raises; the caller reports it
            kept.append(error)
            continue
        try:
            runs(model)
        except Exception as error:  # noqa: BLE001
            kept.append(DoesNotRun(f"{type(error).__name__}: {error}"))
        else:
            return model
    raise next((error for error in kept if isinstance(error, DoesNotRun)), kept[0])


def shrink(config: Any, rule: Rule) -> dict[str, Any]:
    """Constructor arguments for a small config of the same class."""
    accepted = inspect.signature(type(config)).parameters
    given = {name for name, p in accepted.items() if not (rule.derive and p.default is None)}
    values = {k: v for k, v in vars(config).items() if k in given or (rule.cut and isinstance(v, list))}
    depths = {v for name, v in values.items() if _is_int(v) and re.search(_LAYERS, name)}
    token_ids = iter(range(WORDS, WORDS + SPECIAL))
    small: dict[str, Any] = {}
    for name, value in values.items():
        if value is None and not rule.fill:
            continue
        if name in config.sub_configs:
            small[name] = value and type(value)(**shrink(value, rule))
        elif name.endswith("token_id"):
            small[name] = _token_id(name, value, token_ids)
        elif re.search(r"initializer_range|init_std", name):
            small[name] = 0.1  # large enough that rows differ
        elif name in ("is_decoder", "causal"):
            small[name] = True
        elif rule.fill and isinstance(value, list) and set(map(str, value)) == {"linear_attention"}:
            small[name] = [*value[: rule.layers - 1], "full_attention"]
        elif isinstance(value, list | tuple) and len(value) in depths and rule.cut:
            small[name] = value[: rule.layers]
        elif value is None:
            small |= _filled(name, rule)
        elif _is_int(value):
            small[name] = _capped(name, value, values, rule)
    return small


def tokenizer() -> PreTrainedTokenizerFast:
    """Words w0 to w94, split at spaces, in a chat template."""
    words = ["<pad>", "<unk>", "<end>", "<user>", "<assistant>", *(f"w{i}" for i in range(WORDS - 5))]
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for m in messages %}<user> {{ m['content'] }} <end> {% endfor %}<assistant>"
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", chat_template=template
    )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _token_id(name: str, value: Any, free: Iterator[int]) -> int | None:
    """Ids beyond the words, so that no prompt holds an image by chance."""
    if value is None:
        return None
    return {"eos_token_id": 2, "pad_token_id": 0}.get(name, next(free))


def _capped(name: str, value: int, values: dict[str, Any], rule: Rule) -> int:
    if rule.keep_heads and re.search(r"head|rank|hidden_size|embedding_dim|d_model|n_embd|expand|state|d_ssm", name):
        return min(value, 1024)
    if name == "num_key_value_heads" and value == values.get("num_attention_heads"):
        return min(value, 4)  # one key for every head stays so
    if name == "attention_hidden_size":
        return 64 * value // values["hidden_size"]
    cap = next((cap for pattern, cap in _CAPS if re.search(pattern, name)), value)
    return min(value, rule.layers if cap == 4 and re.search(_LAYERS, name) else cap)


def _filled(name: str, rule: Rule) -> dict[str, Any]:
    if name == "layer_types":
        return {name: ["full_attention"] * rule.layers}
    if name == "attn_layer_indices":
        return {name: [rule.layers - 1]}
    number = r"experts|head_dim|_heads|_group$|budget|ratio"
    cap = next((cap for pattern, cap in _CAPS if re.search(pattern, name)), 0)
    return {name: cap} if re.search(number, name) and cap else {}


def _model(config: Any) -> Any:
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    if parameters > MAX_PARAMETERS:
        raise ValueError(f"{parameters / 1e6:.0f} M parameters are not tiny")
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()
