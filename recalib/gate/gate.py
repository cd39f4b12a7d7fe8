"""The gate: what decides whether a prompt is flagged, and the direction that steers it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from recalib import artifact
from recalib.artifact import Origin
from recalib.errors import ArtifactError
from recalib.fingerprint import Fingerprint
from recalib.gate.identification import LanguageMap
from recalib.gate.readout import Readout, SourceRows
from recalib.gate.selection import Candidate
from recalib.gate.summary import ScoreSummary
from recalib.gate.threshold import Threshold

SCHEMA = "recalib.gate/1"


@dataclass(frozen=True)
class LanguageIndex:
    """What names the rows of the tensor `language_directions`; see `LanguageMap`."""

    names: tuple[str, ...]
    least_cosine: float


@dataclass(frozen=True)
class GateMeta:
    """Everything about a gate that is not a tensor; `strength` is the steering strength alpha.

    `transferred` is the threshold of languages that were never calibrated. `held_out` summarises each
    source's scores under the gate of the others, `left_out` has the AUC of sources that these ranked at
    chance, `candidates` is what layer and form were chosen from. `parents` maps what the gate was made
    from to its SHA-256.
    """

    layer: int
    position: str
    strength: float
    transferred: Threshold
    model: Fingerprint = field(default_factory=Fingerprint)
    sources: tuple[str, ...] = ()
    split: str | None = None
    thresholds: dict[str, Threshold] = field(default_factory=dict)
    held_out: dict[str, ScoreSummary] = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    readout: str = "subspace"
    language_index: LanguageIndex | None = None
    parents: dict[str, str] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(frozen=True)
class Gate:
    """A fitted gate.

    `direction` [hidden] is the unit pooled harmfulness direction v, `basis` [hidden, rank] the subspace
    U, `readout` the source readout on U^T h, and `refits` the readouts of languages whose threshold rule
    refits it. `source` holds the source rows' features, which such rules need. `languages` tells the
    language of a row; gates of other tools may lack it.
    """

    direction: np.ndarray
    basis: np.ndarray
    readout: Readout
    source: SourceRows
    meta: GateMeta
    refits: Mapping[str, Readout] = field(default_factory=dict)
    languages: LanguageMap | None = None

    @property
    def rank(self) -> int:
        """Dimension of the subspace."""
        return int(self.basis.shape[1])

    def require_hidden_size(self, hidden: int, where: str) -> None:
        """Raise ArtifactError if activations of `where` have another width than the gate."""
        if hidden != len(self.direction):
            raise ArtifactError(
                f"the gate is for hidden size {len(self.direction)}, but {where} has {hidden}",
                fix="use activations of the model that the gate was made with",
            )

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Coordinates U^T h [n, rank], float64, of rows [n, hidden]."""
        return np.asarray(rows.astype(np.float64) @ self.basis)

    def readout_of(self, language: str | None) -> Readout:
        """The readout whose scores that language's threshold is for."""
        return self.refits.get(language or "", self.readout)

    def threshold_of(self, language: str | None) -> Threshold:
        """A language's threshold; the one transferred from the sources where it has none."""
        return self.meta.thresholds.get(language or "", self.meta.transferred)

    def scores(self, rows: np.ndarray, language: str | None = None) -> np.ndarray:
        """Scores [n], float64, of activations [n, hidden] at the gate's layer and position."""
        return self.readout_of(language).scores(self.features(rows))

    def flags(self, rows: np.ndarray, language: str | None = None) -> np.ndarray:
        """Whether each of the rows [n, hidden] is flagged, as booleans [n]."""
        return self.threshold_of(language).flags(self.scores(rows, language))

    def with_threshold(self, language: str, readout: Readout, threshold: Threshold, rows: np.ndarray) -> "Gate":
        """This gate with a language calibrated; the other languages stay as they are.

        `rows` [n, hidden] are prompts of the language, by which it is recognised from then on.
        """
        known = self.languages
        if known is not None and language not in self.meta.sources:  # a source is known better already
            known = known.with_language(language, rows)
        refits = {code: refit for code, refit in self.refits.items() if code != language}
        if readout is not self.readout:
            refits[language] = readout
        thresholds = {**self.meta.thresholds, language: threshold}
        return replace(self, refits=refits, languages=known, meta=replace(self.meta, thresholds=thresholds))

    def save(self, path: Path | str) -> None:
        """Write the gate as one artifact, atomically; tensors are float32."""
        tensors = {
            "direction": self.direction,
            "basis": self.basis,
            "feature_mean": self.readout.mean,
            "feature_scale": self.readout.scale,
            "weight": self.readout.weight,
            "bias": np.array(self.readout.bias),
            "source_features": self.source.features,
        }
        for language, refit in self.refits.items():
            tensors[f"refit.{language}.weight"] = refit.weight
            tensors[f"refit.{language}.bias"] = np.array(refit.bias)
        stored = {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
        stored["source_labels"] = self.source.labels.astype(np.uint8)
        index = None
        if self.languages is not None:
            stored["language_basis"] = self.languages.basis.astype(np.float32)
            stored["language_center"] = self.languages.center.astype(np.float32)
            stored["language_directions"] = self.languages.directions.astype(np.float32)
            index = LanguageIndex(self.languages.names, self.languages.least_cosine)
        artifact.write(Path(path), SCHEMA, stored, replace(self.meta, language_index=index, origin=Origin.now()))

    @classmethod
    def load(cls, path: Path | str) -> "Gate":
        """Read a gate. Raises ArtifactError if it is not one, is damaged, or is of another schema."""
        path = Path(path)
        tensors, meta = artifact.read(path, SCHEMA, GateMeta)
        _check_shapes(tensors, path)
        readout = Readout(
            tensors["feature_mean"],
            tensors["feature_scale"],
            tensors["weight"],
            float(tensors["bias"]),
        )
        refits = {
            language: replace(
                readout,
                weight=tensors[f"refit.{language}.weight"],
                bias=float(tensors[f"refit.{language}.bias"]),
            )
            for language in meta.thresholds
            if f"refit.{language}.weight" in tensors
        }
        rank = len(readout.weight)
        source = SourceRows(
            tensors.get("source_features", np.empty((0, rank), np.float32)),
            tensors.get("source_labels", np.empty(0, np.uint8)),
        )
        languages = _language_map(tensors, meta.language_index, path)
        return cls(tensors["direction"], tensors["basis"], readout, source, meta, refits, languages)


def _language_map(tensors: Mapping[str, np.ndarray], index: LanguageIndex | None, path: Path) -> LanguageMap | None:
    names = ("language_basis", "language_center", "language_directions")
    if index is None or not all(name in tensors for name in names):
        return None
    basis, center, directions = (tensors[name] for name in names)
    if (
        basis.shape != (len(tensors["direction"]), center.size)
        or center.ndim != 1
        or directions.shape != (len(index.names), center.size)
    ):
        raise ArtifactError(f"{path}: the tensors that identify languages do not fit together")
    return LanguageMap(basis, center, directions, index.names, index.least_cosine)


def _check_shapes(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    needed = ("direction", "basis", "feature_mean", "feature_scale", "weight", "bias")
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise ArtifactError(f"{path}: lacks the tensors {', '.join(missing)}")
    hidden, rank = (*tensors["basis"].shape, 0)[:2]
    expected = {
        "direction": (hidden,),
        "basis": (hidden, rank),
        "bias": (),
        **dict.fromkeys(("feature_mean", "feature_scale", "weight"), (rank,)),
    }
    for name, tensor in tensors.items():
        kind = name.rpartition(".")[2]
        shape = expected.get(kind if name.startswith("refit.") else name)
        if shape is not None and tensor.shape != shape:
            raise ArtifactError(f"{path}: {name!r} has shape {list(tensor.shape)}, expected {list(shape)}")
