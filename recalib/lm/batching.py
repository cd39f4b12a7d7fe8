"""Grouping prompts into batches under a token budget."""

from collections.abc import Callable, Sequence

Advance = Callable[[int], None]
"""Called with the number of prompts just finished, for progress bars."""


def next_batch(order: Sequence[int], begin: int, lengths: Sequence[int], batch_tokens: int) -> list[int]:
    """Row indices from `order[begin]` on, so many that rows x longest row stays within `batch_tokens`.

    `order` is sorted by length, longest first. A row longer than the budget gets a batch of its own. A batch
    that is a quarter full ends where rows get shorter by a quarter: padding them would cost more than a batch.
    """
    longest = lengths[order[begin]]
    rows = list(order[begin : begin + max(1, batch_tokens // longest)])
    for i, row in enumerate(rows):
        if 4 * i * longest >= batch_tokens and 4 * lengths[row] < 3 * longest:
            return rows[:i]
    return rows
