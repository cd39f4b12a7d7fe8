"""Loading a model's first blocks alone."""

from typing import Any

import torch
from torch import nn

from recalib.lm.blocks import find_blocks


def without_weights(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    """A causal LM of a checkpoint's class and shape, whose weights are neither read nor allocated.

    Raises what transformers raises.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def load_first_blocks(
    source: str, count: int, dtype: str, revision: str | None, trust_remote_code: bool
) -> tuple[Any, nn.ModuleList]:
    """A causal LM with its first `count` blocks (all, if it has fewer) and no LM head, and those blocks.

    The weights of other blocks are neither read nor allocated. The config stays as it is: in some
    architectures, what the first blocks do depends on how many there are.

    Raises what transformers raises, and ModelError if no blocks are found.
    """
    kind = type(without_weights(source, revision, trust_remote_code))
    kept: list[nn.ModuleList] = []

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        kind.__init__(self, *arguments, **options)
        blocks = find_blocks(self)
        del blocks[count:]
        # some architectures share weights between blocks, and transformers looks for both ends of each tie
        there = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        ties = self.all_tied_weights_keys.items()
        self.all_tied_weights_keys = {end: origin for end, origin in ties if {end, origin} <= there}
        kept.append(blocks)

    # transformers looks up the file of a class by its module, and the fingerprint takes its name
    truncated = type(kind.__name__, (kind,), {"__init__": init, "__module__": kind.__module__})
    model = truncated.from_pretrained(  # type: ignore[attr-defined]
        source, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code
    )
    if model.get_output_embeddings() is not None:
        model.set_output_embeddings(nn.Identity())
    return model, kept[-1]
