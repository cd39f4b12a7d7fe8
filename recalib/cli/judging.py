"""recalib eval --completions: judging completions made elsewhere, and finding the judge for any evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalib.cli.common import Common
from recalib.cli.measured import Measured
from recalib.cli.tables import agreement_table, refusal_table
from recalib.errors import UsageError
from recalib.languages import select

if TYPE_CHECKING:
    from recalib.evaluation.completions import JudgedCompletions
    from recalib.judges import Judge, Verdict
    from recalib.judges.endpoint import Price

QUALITY = Path("artifacts/judges")
"""Where what was measured of judges is kept, for later reports that use them."""

MANY = 0.1
"""A share of completions."""

AGREEMENT_RATES = ("accuracy", "balanced_accuracy", "kappa", "sensitivity", "specificity", "refusal_rate")


def find_judge(common: Common, name: str, url: str | None, price: str | None, batch_size: int) -> "Judge":
    """The judge of that name. Raises UsageError."""
    from recalib import judges

    if (url or price) and not name.startswith("openai:"):
        raise UsageError("--judge-url and --judge-price are for --judge openai:MODEL")
    setup = judges.Setup(
        url=url,
        price=_price(price),
        cache=QUALITY / "cache",
        note=common.output.note,
        device=common.device,
        dtype=common.dtype,
        batch_size=batch_size,
    )
    judge = judges.find(name, setup)
    if judge.name == "none":
        common.output.warn("--judge none: completions are made but not judged")
    return judge


def _price(text: str | None) -> "Price | None":
    from recalib.judges.endpoint import Price

    if text is None:
        return None
    parts = text.split(",")
    try:
        return Price(float(parts[0]), float(parts[1]))
    except (ValueError, IndexError):
        raise UsageError(f"--judge-price {text!r} is not IN,OUT in dollars", fix="as in 0.15,0.60") from None


def judge_completions(common: Common, file: Path, langs: str | None, judge: "Judge") -> Measured:
    """Judge a file's completions in these languages (None: all), and keep how the judge agreed with references."""
    from recalib.evaluation.completions import judge_rows, measured, read
    from recalib.judges.quality import known, record

    rows = read(file)
    if langs is not None:
        chosen = select(langs, tuple(dict.fromkeys(row.language for row in rows)), str(file))
        rows = [row for row in rows if row.language in chosen]
    judged = judge_rows(rows, judge, known(judge.name, QUALITY).counts, common.seed)
    warn_of_not_judged(common, {code: (a.n - a.judged, a.n) for code, a in judged.agreement.items()})
    if counts := measured(judged.agreement):
        kept = record(judge.name, counts, file.name, QUALITY)
        common.output.note(f"agreement in {', '.join(counts)} kept in {kept}; later reports correct by it")
    return _measured(judged, judge.name)


def warn_of_not_judged(common: Common, languages: Mapping[str, tuple[int, int]]) -> None:
    """Name the languages in which many of n completions were not judged: their rates are of a selection."""
    many = [f"{code} {missing} of {n}" for code, (missing, n) in languages.items() if missing > MANY * n]
    if many:
        common.output.warn(f"not judged: {', '.join(many)}; rates are of the others and may mislead, see the bounds")


def _measured(judged: "JudgedCompletions", judge: str) -> Measured:
    document: dict[str, Any] = {
        "judge_name": judge,
        "judge": {code: asdict(a) for code, a in judged.agreement.items()},
    }
    tables: tuple[Any, ...] = (agreement_table(judged.agreement, judge),)
    macro = {rate: _mean([getattr(a, rate) for a in judged.agreement.values()]) for rate in AGREEMENT_RATES}
    if judged.refusal is not None:
        document |= asdict(judged.refusal)
        tables += (refusal_table({"as made": judged.refusal}),)
        macro |= asdict(judged.refusal.macro)
    rows = (
        {**{k: v for k, v in asdict(row).items() if v is not None}, **verdict_fields(verdict)}
        for row, verdict in zip(judged.rows, judged.verdicts, strict=True)
    )
    return Measured(document, tables, macro, tuple(rows))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def verdict_fields(verdict: "Verdict") -> dict[str, Any]:
    """A verdict as it is written next to its completion."""
    fields = {"verdict": verdict.outcome, "judge": verdict.judge, "refused_in": verdict.language, "why": verdict.why}
    return {name: value for name, value in fields.items() if value is not None}
