"""Judges: whether a completion refused. One interface, `Judge`; `find` chooses one by name."""

from recalib.judges.judge import Answer, Judge, Outcome, Verdict
from recalib.judges.registry import JUDGES, Setup, default_for, find

__all__ = ["JUDGES", "Answer", "Judge", "Outcome", "Setup", "Verdict", "default_for", "find"]
