"""Train the built-in judge again, and print how it does on models that it was not trained on.

    python examples/train_judge.py ../shared/data/refusal_labels

The folder holds openings of completions with a label, MODEL/LANGUAGE.CONDITION.jsonl, as released with arXiv
2505.17306. The same folder gives the same bytes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recalib.errors import RecalibError
from recalib.evaluation.agreement import Agreement, agreement_of
from recalib.judges import builtin, train
from recalib.judges.judge import Verdict


def main() -> None:
    """Fit, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of labelled completions")
    parser.add_argument("--out", type=Path, default=builtin.FILE, help="file to write (default: the shipped one)")
    options = parser.parse_args()

    try:
        data = train.prepare(train.read(options.data))
    except RecalibError as error:
        raise SystemExit(f"error: {error}") from None
    identifier = train.fit_identifier(data)
    verdicts = train.cross_model(data, identifier)
    counts = train.agreement(data.rows, verdicts)
    basis = builtin.Basis(identifier.languages, counts, train.REFERENCE, train.data_hash(options.data))
    builtin.save(options.out, identifier, train.fit_classifier(data), basis)

    strict = train.cross_model(data, identifier, other_prompts=True)
    print_table(data.rows, verdicts, strict, basis.covered)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


def print_table(
    rows: Sequence[train.Labelled], verdicts: Sequence[Verdict], strict: Sequence[Verdict], covered: frozenset[str]
) -> None:
    """Balanced accuracy by language on the models that were not trained on, as Markdown."""
    print("| language | refused + complied | judged | balanced accuracy | plain model only | other prompts, too |")
    print("| --- | --- | --- | --- | --- | --- |")
    plain = [i for i, row in enumerate(rows) if row.condition == "baseline"]
    figures = [
        by_language(rows, verdicts),
        by_language([rows[i] for i in plain], [verdicts[i] for i in plain]),
        by_language(rows, strict),
    ]
    for code, whole in figures[0].items():
        cells = [show(part[code]) for part in figures]
        n = f"{whole.counts.n_refused} + {whole.counts.n_complied}"
        star = "" if code in covered else " (not covered)"
        print(f"| {code}{star} | {n} | {100 * whole.judged / whole.n:.1f} % | {' | '.join(cells)} |")
    for codes in ("de en es fr it nl pl", "ja ko zh"):
        means = [np.mean([part[code].balanced_accuracy for code in codes.split()]) for part in figures]
        print(f"| mean of {codes} | | | {' | '.join(f'{mean:.3f}' for mean in means)} |")


def by_language(rows: Sequence[train.Labelled], verdicts: Sequence[Verdict]) -> dict[str, Agreement]:
    """Agreement of every language that has rows, in the order of the 23."""
    return {
        code: agreement_of(
            [verdict for row, verdict in zip(rows, verdicts, strict=True) if row.language == code],
            [row.refused for row in rows if row.language == code],
        )
        for code in sorted({row.language for row in rows}, key=train.KNOWN.index)
    }


def show(agreement: Agreement) -> str:
    """Balanced accuracy with its interval; a dash where a class has no rows."""
    if agreement.balanced_accuracy is None:
        return "-"
    low, high = agreement.balanced_accuracy_interval or (agreement.balanced_accuracy,) * 2
    return f"{agreement.balanced_accuracy:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
