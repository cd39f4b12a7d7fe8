"""Judges: whether a completion refused. One interface, `Judge`; `find` chooses one by name."""

from recalib.judges.judge import Judge, Outcome, Verdict
from recalib.judges.registry import JUDGES, default_for, find

__all__ = ["JUDGES", "Judge", "Outcome", "Verdict", "default_for", "find"]
