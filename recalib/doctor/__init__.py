"""Whether recalib works on a model: checks that run the model on a few short prompts and compare."""

from recalib.doctor.diagnosis import PROMPTS, diagnose
from recalib.doctor.findings import Check, Diagnosis, ReadPositions

__all__ = ["PROMPTS", "Check", "Diagnosis", "ReadPositions", "diagnose"]
