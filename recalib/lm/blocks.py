"""Where a model's decoder blocks are, and what comes out of them."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from recalib.errors import ModelError


def find_decoder(model: Any) -> Any:
    """The module that holds the decoder blocks and runs on token ids, without the LM head where it is separate.

    `get_decoder()` where that holds a list of modules; some types return their head from it, or lack it.
    """
    get_decoder = getattr(model, "get_decoder", None)
    found = (get_decoder() if get_decoder else None, getattr(model, "base_model", None))
    return next((part for part in found if part is not None and _lists(part)), model)


def find_blocks(model: Any) -> nn.ModuleList:
    """The model's decoder blocks, in order.

    They are the shallowest ModuleList of `num_hidden_layers` entries inside the decoder, and, where the
    config counts otherwise, of the shallowest lists the one with the most parameters. Raises ModelError if
    there is none.
    """
    lists = _lists(find_decoder(model))
    if not lists:
        raise ModelError(f"{type(model).__name__}: no list of decoder blocks was found in it")
    expected = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    counted = [(depth, blocks) for depth, blocks in lists if len(blocks) == expected]
    top = min(depth for depth, _ in counted or lists)
    return max((blocks for depth, blocks in counted or lists if depth == top), key=_size)


def _lists(module: nn.Module) -> list[tuple[int, nn.ModuleList]]:
    """The lists of modules in a module that are not empty, with their depths."""
    return [(name.count("."), m) for name, m in module.named_modules() if isinstance(m, nn.ModuleList) and len(m)]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def hidden_states(output: Any) -> Tensor:
    """A block's residual stream [batch, tokens, hidden], from a bare tensor or a tuple's first entry.

    Where each token has several streams (hyper-connections), they lie side by side in `hidden`. Raises
    ModelError if the block returned something else.
    """
    tensor = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(tensor, Tensor) or tensor.dim() < 3:
        shape = f" of shape {list(tensor.shape)}" if isinstance(tensor, Tensor) else ""
        raise ModelError(f"a decoder block returned {type(tensor).__name__}{shape}, not [batch, tokens, hidden]")
    return tensor.flatten(2)


def with_hidden_states(output: Any, replacement: Tensor) -> Any:
    """The block's output with another residual stream [batch, tokens, hidden] and everything else as it was."""
    if not isinstance(output, tuple | list):
        return replacement.view_as(output)
    entries = (replacement.view_as(output[0]), *output[1:])
    return type(output)(*entries) if hasattr(output, "_fields") else type(output)(entries)


class _Enough(Exception):
    """Raised inside a forward pass once the last wanted block has run."""


@contextlib.contextmanager
def capturing(blocks: nn.ModuleList, layers: tuple[int, ...], keep: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within the block, forward passes hand every wanted layer's output to `keep` and then stop.

    Blocks after the last wanted one, the final norm and the LM head never run. `keep(layer, h)` gets
    h [batch, tokens, hidden] on the model's device; it must copy what it wants to hold on to.

    Raises ModelError if a wanted block was not called: cross-attention to images is skipped for text, and
    some models call their blocks past the hooks.
    """
    last = max(layers)
    called: set[int] = set()

    def hook(layer: int) -> Callable[..., None]:
        def read(module: nn.Module, inputs: Any, output: Any) -> None:
            called.add(layer)
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
    silent = sorted(set(layers) - called)
    if silent:
        raise ModelError(f"hooks on block {', '.join(map(str, silent))} are not called, so nothing can be read there")
