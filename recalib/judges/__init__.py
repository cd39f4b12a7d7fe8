"""Judges: whether a completion refused. One interface, `Judge`; `find` chooses one by name."""

from recalib.judges.judge import Answer, Judge, Outcome, Verdict
from recalib.judges.registry import JUDGES, default_for, find

__all__ = ["JUDGES", "Answer", "Judge", "Outcome", "Verdict", "default_for", "find"]
