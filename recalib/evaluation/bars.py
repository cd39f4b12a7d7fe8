"""Bars that a result must clear, such as `selectivity>=0.5`."""

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recalib.errors import UsageError

_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Bar:
    """A condition on one macro figure; rates are fractions."""

    metric: str
    comparison: str
    value: float

    def met_by(self, figures: Mapping[str, float | None]) -> bool:
        """Whether the figure clears the bar; one that could not be measured does not."""
        figure = figures.get(self.metric)
        return figure is not None and bool(_COMPARE[self.comparison](figure, self.value))

    def __str__(self) -> str:
        return f"{self.metric}{self.comparison}{self.value:g}"


def parse_bar(text: str, metrics: Sequence[str]) -> Bar:
    """`selectivity>=0.5` as a Bar. Raises UsageError for another form or an unknown metric."""
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*(-?\d*\.?\d+)\s*", text)
    if match is None:
        raise UsageError(f"--fail-under {text!r} is not METRIC>=FRACTION", fix="as in 'selectivity>=0.5'")
    metric, comparison, value = match.groups()
    if metric not in metrics:
        raise UsageError(f"--fail-under: {metric!r} is not measured here", fix=f"one of {', '.join(metrics)}")
    return Bar(metric, comparison, float(value))
