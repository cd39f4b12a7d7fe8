"""The embedded model organism: a tiny chat model, trained from scratch, that refuses unevenly.

It knows in 16 languages which requests are harmful, but was taught to refuse them almost only in
the ten high-resource ones; see `world` for its data, `training` for the recipe and
`weights/README.md` for its figures. Importing this package costs nothing: torch is loaded only by
`training` and `card`.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "weights"
"""Folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` load."""

GATE_FILE: Path = Path(__file__).parent / "gate.safetensors"
"""The gate fitted on the organism's ten high-resource languages."""
