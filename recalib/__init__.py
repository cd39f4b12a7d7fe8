"""recalib: few-shot safety recalibration of language models (method: arXiv 2606.01196)."""

__version__ = "0.1.0"
