"""What identifies a model, so that an artifact is never used with another one."""

from dataclasses import asdict, dataclass

from recalib.errors import ArtifactError


@dataclass(frozen=True)
class Fingerprint:
    """Identity of a model and its tokenizer. None means not known, and never contradicts.

    `revision` is a Hub commit, `weights` the SHA-256 of a local model's weight files; `tokenizer` and
    `chat_template` are SHA-256 of the vocabulary and of the template.
    """

    model: str | None = None
    revision: str | None = None
    weights: str | None = None
    architecture: str | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    tokenizer: str | None = None
    chat_template: str | None = None

    def conflicts(self, other: "Fingerprint") -> list[str]:
        """Names of the fields that are known on both sides and differ.

        Names of models may differ (a copy in another folder is the same model); revisions count only
        between models of one name.
        """
        mine, theirs = asdict(self), asdict(other)
        fields = set(mine) - {"model"}
        if self.model != other.model:
            fields.discard("revision")
        return sorted(
            field for field in fields if None not in (mine[field], theirs[field]) and mine[field] != theirs[field]
        )

    def require_same(self, other: "Fingerprint", mine: str, theirs: str) -> None:
        """Raise ArtifactError naming both sides if they contradict each other."""
        differing = self.conflicts(other)
        if differing:
            detail = "; ".join(
                f"{field} {_short(getattr(self, field))} against {_short(getattr(other, field))}" for field in differing
            )
            raise ArtifactError(
                f"{mine} was made with {self.model or 'a model'}, but {theirs} is "
                f"{other.model or 'another model'}: {detail}",
                fix="use the model it was made with (--model, --revision), or extract and fit again",
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
