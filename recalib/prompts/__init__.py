"""Prompt sources: the embedded ones, PolyRefuse folders, tables, and data sets of the Hub."""

from recalib.prompts.prompt import KINDS, LABELS, Prompt, PromptSet, prompt_id, prompts_hash
from recalib.prompts.sources import load

__all__ = ["KINDS", "LABELS", "Prompt", "PromptSet", "load", "prompt_id", "prompts_hash"]
