"""Running a model over prompts and keeping the residual stream where it is wanted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recalib.errors import ModelError
from recalib.lm.batching import Advance, next_batch
from recalib.lm.blocks import capturing
from recalib.lm.chat import Encoded
from recalib.lm.model import LanguageModel

CPU_TOKENS = 1024
ACCELERATOR_TOKENS = 16384
"""Enough to keep the matrix units busy; more gains nothing, only padding and memory."""

WINDOW = 4096
"""Prompts whose tokens are held at a time; enough of them to find equally long ones."""


@dataclass
class Budget:
    """How many tokens, padding included, a batch may have. It shrinks for good where memory runs out."""

    tokens: int

    @classmethod
    def of(cls, lm: LanguageModel, tokens: int | None = None) -> "Budget":
        """The budget asked for, or what suits the model's device."""
        return cls(tokens or (CPU_TOKENS if lm.device.type == "cpu" else ACCELERATOR_TOKENS))


def extract(
    lm: LanguageModel,
    texts: Sequence[str],
    layers: tuple[int, ...],
    positions: tuple[str, ...],
    batch_tokens: int | None = None,
    advance: Advance = lambda n: None,
) -> np.ndarray:
    """Residual stream [prompts, layers, positions, hidden], float32, after each of `layers`.

    As `stream`, all at once. `batch_tokens` is tokens a batch, padding included; None is what suits the device.
    """
    result = np.empty((len(texts), len(layers), len(positions), lm.hidden_size), np.float32)
    for rows, values in stream(lm, texts, layers, positions, Budget.of(lm, batch_tokens)):
        result[rows] = values
        advance(len(rows))
    return result


def stream(
    lm: LanguageModel,
    texts: Sequence[str],
    layers: tuple[int, ...],
    positions: tuple[str, ...],
    budget: Budget,
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Residual stream after each of `layers`, batch by batch: indices of prompts, and their
    [indices, layers, positions, hidden], float32.

    Positions are `t_post_inst`, `t_inst` or `mean` (over all prompt tokens). Some thousand prompts at a time are
    taken together, the longest first, so that a batch that is too large for the device fails at once; it is
    halved then, and so is the budget.
    Padding goes to the right, where causal models never look, so that a row is the same alone and in any batch.

    Raises ModelError if an activation is NaN or infinite, or if there is no memory for one prompt.
    """
    for begin in range(0, len(texts), WINDOW):
        for rows, values in _stream_window(lm, texts[begin : begin + WINDOW], layers, positions, budget):
            yield [begin + row for row in rows], values


def _stream_window(
    lm: LanguageModel,
    texts: Sequence[str],
    layers: tuple[int, ...],
    positions: tuple[str, ...],
    budget: Budget,
) -> Iterator[tuple[list[int], np.ndarray]]:
    encoded = lm.chat.encode_all(texts)
    lengths = [len(e.ids) for e in encoded]
    order = sorted(range(len(texts)), key=lambda i: (-lengths[i], i))
    begun = 0
    running: _Running | None = None
    while begun < len(order):
        rows = next_batch(order, begun, lengths, budget.tokens)
        started = _try(lm, rows, encoded, layers, positions)
        if started is None:
            _shrink(budget, len(rows), lengths[rows[0]])
            continue
        begun += len(rows)
        # one batch late: its copy to the host runs while the device is at work on the next
        if running is not None:
            yield running.rows, _values(lm, running)
        running = started
    if running is not None:
        yield running.rows, _values(lm, running)


@dataclass(frozen=True)
class _Running:
    """A batch: per layer its activations [rows, positions, hidden], on their way to the host until `copied`."""

    rows: list[int]
    layers: list[Tensor]
    copied: list[torch.cuda.Event]


def _try(
    lm: LanguageModel,
    rows: list[int],
    encoded: Sequence[Encoded],
    layers: tuple[int, ...],
    positions: tuple[str, ...],
) -> _Running | None:
    """Start a batch; None if there was no memory for it. By then what it held is free again."""
    try:
        return _start(lm, rows, [encoded[i] for i in rows], layers, positions)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        return None


def _start(
    lm: LanguageModel,
    indices: list[int],
    rows: list[Encoded],
    layers: tuple[int, ...],
    positions: tuple[str, ...],
) -> _Running:
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), lm.tokenizer.pad_token_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        mask[i, : len(row.ids)] = 1
    # whatever the hooks need goes to the device beforehand: a copy inside one would wait for the blocks before it
    ids, mask = ids.to(lm.device), mask.to(lm.device)
    at = {
        position: torch.tensor([getattr(row, position) for row in rows], device=lm.device)
        for position in positions
        if position != "mean"
    }
    kept: dict[int, Tensor] = {}

    def keep(layer: int, h: Tensor) -> None:
        read = [_at(h, at[position]) if position in at else _mean(h, mask) for position in positions]
        # from CUDA, torch makes the target pinned; elsewhere nobody waits for a copy that does not block
        kept[layer] = torch.stack(read, dim=1).to("cpu", non_blocking=h.is_cuda)

    with capturing(lm.blocks, layers, keep):
        lm.decoder(**lm.inputs(ids, mask))
    return _Running(indices, [kept[layer] for layer in layers], _events(lm))


def _events(lm: LanguageModel) -> list[torch.cuda.Event]:
    """One event on every GPU that holds a part of the model, recorded now."""
    devices = {parameter.device for parameter in lm.blocks.parameters() if parameter.is_cuda}
    return [torch.cuda.current_stream(device).record_event() for device in devices]


def _values(lm: LanguageModel, batch: _Running) -> np.ndarray:
    for event in batch.copied:
        event.synchronize()
    values: np.ndarray = torch.stack(batch.layers, dim=1).numpy()
    if not np.isfinite(values).all():
        raise ModelError(
            f"activations of {lm.fingerprint.model} are NaN or infinite in {lm.model.dtype}",
            fix="--dtype float32, or bfloat16 where float16 overflows",
        )
    return values


def _at(h: Tensor, index: Tensor) -> Tensor:
    """h [batch, tokens, hidden] at one token a row: [batch, hidden], float32."""
    return h[torch.arange(len(h), device=h.device), index.to(h.device)].float()


def _mean(h: Tensor, mask: Tensor) -> Tensor:
    """Mean of h [batch, tokens, hidden] over the tokens that mask [batch, tokens] counts: [batch, hidden], float32."""
    weights = mask.to(h.device, torch.float32)[:, :, None]
    return (h.float() * weights).sum(1) / weights.sum(1)


def _is_out_of_memory(error: Exception) -> bool:
    # only CUDA and XPU have an exception of their own; the CPU's and MPS's allocators raise RuntimeError
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        text in str(error) for text in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _shrink(budget: Budget, rows: int, longest: int) -> None:
    """Make the budget hold half of a batch that did not fit. Raises ModelError if it was a single prompt."""
    if rows == 1:
        raise ModelError(
            f"there is no memory for one prompt of {longest} tokens",
            fix="--dtype bfloat16, fewer --layers, a device with more memory, or shorter prompts",
        )
    budget.tokens = rows * longest // 2
    if torch.cuda.is_available():
        # what the failed batch held is in pieces that only its own shapes fit
        torch.cuda.empty_cache()
