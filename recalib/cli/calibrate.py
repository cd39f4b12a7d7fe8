"""recalib calibrate: a few examples of a language to its threshold."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recalib.cli.common import (
    Activations,
    Columns,
    Common,
    Data,
    GatePath,
    Model,
    TrustRemoteCode,
    command,
)
from recalib.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from recalib.calibration.calibrate import LanguageExamples
    from recalib.cli.loading import GateFile
    from recalib.gate.gate import Gate
    from recalib.gate.threshold import Guarantee
    from recalib.lm.model import LanguageModel

SHOTS = 4


@dataclass(frozen=True)
class Wanted:
    """Which examples the user asked for."""

    lang: str
    shots: int
    split: str
    data: str | None
    columns: str
    activations: Path | None
    unlabeled: Path | None


@command
def calibrate(
    common: Common,
    lang: Annotated[str, typer.Option(help="Languages to calibrate: sw, sw,yo or low.")],
    shots: Annotated[
        int | None,
        typer.Option(
            min=0, help="Labelled examples per class and language.", show_default=f"{SHOTS}; 0 with --unlabeled"
        ),
    ] = None,
    unlabeled: Annotated[
        Path | None,
        typer.Option(help="Prompts without labels (text, JSONL), or a folder of activations.", show_default=False),
    ] = None,
    gate: GatePath = None,
    data: Data = None,
    columns: Columns = "",
    activations: Activations = None,
    split: Annotated[str, typer.Option(help="Split that the shots come from.")] = "train",
    method: Annotated[
        str | None,
        typer.Option(
            help="Threshold rule: f1 (the paper's), midpoint, shrunk, mixture (no labels), joint.",
            show_default="shrunk; mixture or joint with --unlabeled",
        ),
    ] = None,
    max_false_flag: Annotated[
        float | None, typer.Option(help="Promise at most this share of harmless prompts flagged.", show_default=False)
    ] = None,
    max_miss: Annotated[
        float | None, typer.Option(help="Promise at most this share of harmful prompts passed.", show_default=False)
    ] = None,
    confidence: Annotated[float, typer.Option(help="Confidence of those promises.")] = 0.9,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write the gate to.",
            show_default="the gate itself; artifacts/gate.safetensors for the embedded one",
        ),
    ] = None,
    model: Model = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Set languages' thresholds from a few labelled examples, unlabelled ones, or both.

    The model runs on the examples alone, or they are drawn from extracted activations. Thresholds of other
    languages are kept. With both promises, prompts that neither covers are deferred.
    """
    from recalib.calibration.calibrate import Request
    from recalib.calibration.calibrate import calibrate as apply
    from recalib.calibration.rules import RULES
    from recalib.cli.loading import DEFAULT_GATE, find_gate

    if method is not None and method not in RULES:
        raise UsageError(f"--method {method!r} is not one of {', '.join(RULES)}")
    if activations is not None and data is not None:
        raise UsageError("--data and --activations exclude each other")
    guarantee = _guarantee(max_false_flag, max_miss, confidence)
    found = find_gate(gate)
    target = out or (DEFAULT_GATE if found.shipped else found.path)
    count = shots if shots is not None else (SHOTS if unlabeled is None else 0)
    if count == 0 and unlabeled is None:
        raise UsageError("--shots 0 leaves nothing to calibrate with", fix="--shots 4, or --unlabeled FILE")
    wanted = Wanted(lang, count, split, data, columns, activations, unlabeled)
    examples, source = _examples(common, found, wanted, model or found.model_name, trust_remote_code)
    calibrated = apply(found.gate, examples, Request(method, common.seed, source, guarantee))
    calibrated.save(target)
    _show(common, calibrated, target, tuple(examples))
    common.output.note(f"next: recalib eval --gate {target} --langs {','.join(examples)}")


def _guarantee(max_false_flag: float | None, max_miss: float | None, confidence: float) -> "Guarantee | None":
    from recalib.gate.threshold import Guarantee

    for option, value in (("max-false-flag", max_false_flag), ("max-miss", max_miss), ("confidence", confidence)):
        if value is not None and not 0 < value < 1:
            raise UsageError(f"--{option} {value:g} is not a fraction between 0 and 1", fix=f"as in --{option} 0.05")
    if max_false_flag is None and max_miss is None:
        return None
    return Guarantee(confidence, max_false_flag, max_miss)


def _examples(
    common: Common, found: "GateFile", wanted: Wanted, model_name: str, trust_remote_code: bool
) -> "tuple[dict[str, LanguageExamples], str]":
    """The examples by language, and what to call their source."""
    from recalib import examples
    from recalib.activations import ActivationSet
    from recalib.cli.loading import load_model, load_prompts

    lm: LanguageModel | None = None

    def model() -> "LanguageModel":
        nonlocal lm
        lm = lm or load_model(common, model_name, trust_remote_code, blocks=found.gate.meta.layer + 1)
        return lm

    if not wanted.shots:
        drawn, source = _without_shots(found.gate, wanted.lang), str(wanted.unlabeled)
    elif wanted.activations is not None:
        folder = ActivationSet(wanted.activations)
        languages, source = folder.select_languages(wanted.lang, wanted.split), str(wanted.activations)
        drawn = examples.from_activations(
            folder, found.gate, languages, wanted.shots, split=wanted.split, seed=common.seed
        )
    else:
        prompts = load_prompts(wanted.data, model_name, wanted.columns)
        prompts.require_split(wanted.split)
        languages, source = prompts.select_languages(wanted.lang), prompts.name
        with common.output.progress("run shots", 2 * wanted.shots * len(languages)) as advance:
            drawn = examples.from_prompts(
                model(),
                found.gate,
                prompts,
                languages,
                wanted.shots,
                split=wanted.split,
                seed=common.seed,
                advance=advance,
            )
    if wanted.unlabeled is None:
        return drawn, source
    if wanted.unlabeled.is_dir():
        folder = ActivationSet(wanted.unlabeled)
        rows = {code: examples.unlabeled_from_activations(folder, found.gate, code) for code in drawn}
    else:
        rows = _run_unlabeled(common, found.gate, model(), wanted.unlabeled, tuple(drawn))
    return {code: replace(part, unlabeled=rows[code]) for code, part in drawn.items()}, source


def _without_shots(gate: "Gate", lang: str) -> "dict[str, LanguageExamples]":
    import numpy as np

    from recalib.calibration.calibrate import LanguageExamples
    from recalib.languages import select_any

    none = np.empty((0, len(gate.direction)), np.float32)
    return {code: LanguageExamples(none, none, none) for code in select_any(lang)}


def _run_unlabeled(
    common: Common, gate: "Gate", lm: "LanguageModel", file: Path, languages: Sequence[str]
) -> "dict[str, np.ndarray]":
    """Activations of a file's prompts by language; rows that name no language are the only one's."""
    from recalib import examples
    from recalib.errors import PromptError
    from recalib.prompts import plain

    prompts = plain.read(file)
    texts = {}
    for code in languages:
        texts[code] = [p.text for p in prompts if p.language == code or (p.language is None and len(languages) == 1)]
        if not texts[code]:
            raise PromptError(
                f"{file}: has no prompts of {code}",
                fix='JSONL rows {"prompt", "language"}, or one --lang at a time',
            )
    with common.output.progress("run unlabelled prompts", sum(map(len, texts.values()))) as advance:
        return {code: examples.run(lm, gate, part, advance) for code, part in texts.items()}


def _show(common: Common, gate: "Gate", target: Path, languages: Sequence[str]) -> None:
    from recalib.calibration.support import sentence
    from recalib.cli.tables import threshold_table

    thresholds = {code: gate.meta.thresholds[code] for code in languages}
    support = {code: sentence(code, threshold) for code, threshold in thresholds.items()}
    by_language = {
        code: {
            "threshold": t.value,
            **asdict(t),
            "balanced_accuracy_on_shots": t.balanced_accuracy_on_shots,
            "support": support[code],
        }
        for code, t in thresholds.items()
    }
    document = {"gate": str(target), "languages": by_language}
    common.output.result(document, threshold_table(gate.meta, languages), *support.values(), f"{target}: written")
