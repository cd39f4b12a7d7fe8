"""Grouping prompts into batches under a token budget."""

from collections.abc import Callable

Advance = Callable[[int], None]
"""Called with the number of prompts just finished, for progress bars."""


def batches(lengths: list[int], batch_tokens: int) -> list[list[int]]:
    """Group row indices so that rows x longest row stays within `batch_tokens`, longest rows first.

    A row longer than the budget gets a batch of its own. Longest first, so that a batch that is too
    large for the device fails at once and not after an hour.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        group = groups[-1] if groups else []
        if not group or (len(group) + 1) * lengths[group[0]] > batch_tokens:
            groups.append([index])
        else:
            group.append(index)
    return groups
