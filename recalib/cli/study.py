"""recalib eval --study shots: thresholds from few examples, over many draws."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalib.cli.common import Common
from recalib.cli.tables import study_table
from recalib.errors import UsageError

if TYPE_CHECKING:
    from recalib.cli.loading import GateFile
    from recalib.evaluation.study import Design, StudyRow

METHODS = "f1,midpoint,shrunk,mixture,joint"


def parse_design(shots: str, methods: str | None, draws: int, unlabeled: int, prevalence: float, seed: int) -> "Design":
    """The design from the command line's options. Raises UsageError."""
    from recalib.evaluation.study import Design

    counts = [part.strip() for part in shots.split(",")]
    if not all(count.isdecimal() for count in counts):
        raise UsageError(f"--shots {shots!r} is not a list of numbers", fix="as in --shots 0,1,2,4,8,16")
    names = tuple(part.strip() for part in (methods or METHODS).split(","))
    return Design(tuple(map(int, counts)), names, draws, unlabeled, prevalence, seed)


def run_study(common: Common, found: "GateFile", root: Path, langs: str, design: "Design", out: Path | None) -> None:
    """Run the study, show it, and write results.json and shots.png below `out`."""
    from recalib.activations import ActivationSet
    from recalib.artifact import atomic
    from recalib.evaluation.study import count, study

    folder = ActivationSet(root)
    languages = folder.select_languages(langs, "test")
    with common.output.progress("study", count(design, languages), "cells") as advance:
        rows = study(folder, found.gate, languages, design, advance)
    document = {"study": [asdict(row) for row in rows], "design": asdict(design)}
    if out is not None:
        with atomic(out / "results.json") as handle:
            json.dump(document, handle, ensure_ascii=False, indent=2, allow_nan=False)
        _plot(rows, out / "shots.png")
        common.output.note(f"written to {out}")
    common.output.result(document, study_table(rows))


def _plot(rows: "Sequence[StudyRow]", path: Path) -> None:
    """Balanced accuracy against shots, a line a method: mean over languages, band down to the 10th percentile."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    labelled = sorted({row.shots for row in rows if row.shots})
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        if {row.shots for row in own} == {0}:
            mean, _ = _macro(own)
            axes.axhline(100 * mean, linestyle=":", color="0.5")
            axes.text(1, 100 * mean, f" {method}, no labels", va="bottom", color="0.3", transform=_right(axes))
            continue
        points = [_macro([row for row in own if row.shots == n]) for n in labelled]
        (line,) = axes.plot(labelled, [100 * mean for mean, _ in points], marker="o", label=method)
        means, lows = ([100 * point[i] for point in points] for i in (0, 1))
        axes.fill_between(labelled, lows, means, alpha=0.12, color=line.get_color())
    best = sum(row.best_threshold_balanced_accuracy for row in rows) / len(rows)
    axes.axhline(100 * best, linestyle="--", color="black", linewidth=1, label="best threshold in hindsight")
    axes.set_xscale("log", base=2)
    axes.set_xticks(labelled, [str(n) for n in labelled])
    axes.set_xlabel("labelled shots a class")
    axes.set_ylabel("balanced accuracy on test, %, macro")
    axes.set_title("Mean over draws; shaded down to the 10th percentile", fontsize=10)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))


def _right(axes: Any) -> Any:
    """Coordinates that are fractions of the width across and data upwards."""
    return axes.get_yaxis_transform()


def _macro(rows: "Sequence[StudyRow]") -> tuple[float, float]:
    """Means over languages of the mean and of the 10th percentile of balanced accuracy."""
    means = [row.balanced_accuracy.mean for row in rows]
    lows = [row.balanced_accuracy.p10 for row in rows]
    return sum(means) / len(means), sum(lows) / len(lows)
