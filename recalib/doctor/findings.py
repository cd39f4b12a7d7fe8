"""What an examination found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that recalib's commands rely on.

    `difference` is what was measured where two ways of running the model were compared, in standard
    deviations over prompts (scores) or over the vocabulary (logits), and `tolerance` what it is held
    against; `detail` says what was found, and, where it did not pass, what that means.
    """

    name: str
    passed: bool
    detail: str
    difference: float | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class ReadPositions:
    """Tokens of a formatted prompt, with the indices that activations are read at."""

    template: bool
    tokens: tuple[str, ...]
    t_inst: int
    t_post_inst: int


@dataclass(frozen=True)
class Diagnosis:
    """A model's facts, and the checks that it passed or not."""

    model: str | None
    architecture: str | None
    parameters: int
    dtype: str
    device: str
    blocks: str
    num_layers: int
    hidden_size: int | None
    positions: ReadPositions | None
    checks: tuple[Check, ...]

    @property
    def works(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def reason(self) -> str | None:
        """Why recalib does not work on the model; None where it does."""
        return "; ".join(f"{check.name}: {check.detail}" for check in self.checks if not check.passed) or None
