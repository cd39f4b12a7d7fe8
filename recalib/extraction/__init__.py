"""Prompts to activations: what to read (`plan`), running the model (`forward`), and the files (`store`)."""

from recalib.extraction.forward import Budget, extract, stream
from recalib.extraction.plan import Plan, plan_cells
from recalib.extraction.store import extract_to

__all__ = ["Budget", "Plan", "extract", "extract_to", "plan_cells", "stream"]
