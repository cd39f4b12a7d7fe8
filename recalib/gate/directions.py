"""Harmfulness directions of source languages, the subspace they span, and the steering strength.

Section 2 of the method (arXiv 2606.01196). Rows are residual-stream vectors [n, hidden] at one layer
and position; everything is computed in float64.
"""

from collections.abc import Sequence

import numpy as np

from recalib.errors import CalibrationError


def mean_difference(harmful: np.ndarray, harmless: np.ndarray) -> np.ndarray:
    """Unit vector [hidden] from the harmless to the harmful class mean, d_l of one language.

    Raises CalibrationError if the means coincide.
    """
    difference = harmful.mean(0, dtype=np.float64) - harmless.mean(0, dtype=np.float64)
    norm = float(np.linalg.norm(difference))
    if norm == 0:
        raise CalibrationError("harmful and harmless prompts have the same mean activation")
    return np.asarray(difference / norm)


def subspace(directions: Sequence[np.ndarray], rank: int) -> np.ndarray:
    """Orthonormal basis U [hidden, rank]: the top right singular vectors of the stacked d_l."""
    return np.asarray(np.linalg.svd(np.stack(directions), full_matrices=False)[2][:rank].T)


def strength(harmful: np.ndarray, harmless: np.ndarray, direction: np.ndarray) -> float:
    """Steering strength: Q75(v.h | harmful) - Q25(v.h | harmless), in units of the residual stream."""
    upper = np.quantile(harmful.astype(np.float64) @ direction, 0.75)
    lower = np.quantile(harmless.astype(np.float64) @ direction, 0.25)
    return float(upper - lower)
