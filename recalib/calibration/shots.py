"""Drawing shots: which examples of a language calibrate it."""

import hashlib

import numpy as np

from recalib.errors import CalibrationError


def draw(count: int, shots: int, language: str, label: str, seed: int) -> list[int]:
    """Indices of `shots` out of `count` rows, without replacement, in ascending order.

    The draw depends on the arguments only, so the same source gives the same shots from prompts and from
    extracted activations, whichever other languages are calibrated beside it.

    Raises CalibrationError if there are too few rows.
    """
    if count < shots:
        raise CalibrationError(
            f"{language}: {shots} {label} shots are wanted, but there are {count} {label} prompts",
            fix=f"--shots {count}" if count else "add prompts of that class, or use another --data",
        )
    digest = hashlib.sha256(f"{seed}/{language}/{label}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    return sorted(int(index) for index in rng.choice(count, size=shots, replace=False))
