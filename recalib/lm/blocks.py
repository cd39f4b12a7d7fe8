"""Where a model's decoder blocks are, and what comes out of them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from recalib.errors import ModelError


def find_blocks(model: Any) -> nn.ModuleList:
    """The model's decoder blocks, in order.

    They are the shallowest ModuleList of `num_hidden_layers` entries inside the decoder. Raises
    ModelError if there is none.
    """
    decoder = model.get_decoder()
    expected = model.config.get_text_config(decoder=True).num_hidden_layers
    lists = [
        (name.count("."), module)
        for name, module in decoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == expected
    ]
    if not lists:
        raise ModelError(f"{type(model).__name__}: no list of {expected} decoder blocks was found in it")
    return min(lists, key=lambda found: found[0])[1]


def hidden_states(output: Any) -> Tensor:
    """A block's residual stream [batch, tokens, hidden], from a bare tensor or a tuple's first entry."""
    tensor = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(tensor, Tensor):
        raise ModelError(f"a decoder block returned {type(output).__name__}, not a tensor")
    return tensor


def with_hidden_states(output: Any, replacement: Tensor) -> Any:
    """The block's output with another residual stream and everything else as it was."""
    if isinstance(output, tuple | list):
        return type(output)((replacement, *output[1:]))
    return replacement


class _Enough(Exception):
    """Raised inside a forward pass once the last wanted block has run."""


@contextlib.contextmanager
def capturing(blocks: nn.ModuleList, layers: tuple[int, ...], keep: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within the block, forward passes hand every wanted layer's output to `keep` and then stop.

    Blocks after the last wanted one, the final norm and the LM head never run. `keep(layer, h)` gets
    h [batch, tokens, hidden] on the model's device; it must copy what it wants to hold on to.
    """
    last = max(layers)

    def hook(layer: int) -> Callable[..., None]:
        def read(module: nn.Module, inputs: Any, output: Any) -> None:
            keep(layer, hidden_states(output))
            if layer == last:
                raise _Enough

        return read

    handles = [blocks[layer].register_forward_hook(hook(layer)) for layer in layers]
    try:
        with torch.inference_mode(), contextlib.suppress(_Enough):
            yield
    finally:
        for handle in handles:
            handle.remove()
