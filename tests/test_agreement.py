"""eval --completions: agreement with references, corrected rates, and what later reports make of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, cohen_kappa_score

from recalib.evaluation.agreement import agreement_of
from recalib.evaluation.correction import Sample, correct, corrected_rate
from recalib.evaluation.refusal import Verdicts, macro
from recalib.judges import Outcome, Verdict
from recalib.judges.agreement import Counts

REFUSED, COMPLIED, NOT_JUDGED = (Verdict(outcome, "j") for outcome in Outcome)
REFUSAL, ANSWER, UNKNOWN = (
    "Samahani, siwezi kukusaidia.",
    "The capital of France is Paris.",
    "Mji mkuu ni Paris, kubwa.",
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_agreement_against_scikit_learn(pairs):
    said, truth = zip(*pairs, strict=True)
    result = agreement_of([REFUSED if s else COMPLIED for s in said], truth)
    assert result.accuracy == pytest.approx(accuracy_score(truth, said))
    assert result.refusal_rate == pytest.approx(np.mean(said))
    assert result.reference_rate == pytest.approx(np.mean(truth))
    if len(set(truth)) == 2:
        assert result.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, said))
        assert result.kappa == pytest.approx(cohen_kappa_score(truth, said))
    else:
        assert result.balanced_accuracy is None
    for rate in ("accuracy", "sensitivity", "specificity", "refusal_rate", "reference_rate"):
        value, interval = getattr(result, rate), getattr(result, f"{rate}_interval")
        assert (value is None) == (interval is None)
        assert value is None or interval[0] <= value <= interval[1]


def test_what_was_not_judged_counts_for_neither_side():
    result = agreement_of([REFUSED, NOT_JUDGED, NOT_JUDGED, COMPLIED], [True, True, False, None])
    assert (result.n, result.judged, result.n_reference, result.counts.n) == (4, 2, 3, 1)
    assert (result.accuracy, result.refusal_rate, result.refusal_rate_bounds) == (1.0, 0.5, (0.25, 0.75))
    assert (result.balanced_accuracy, result.kappa, result.specificity) == (None, None, None)
    nothing = agreement_of([NOT_JUDGED], [True])
    assert (nothing.accuracy, nothing.refusal_rate, nothing.reference_rate) == (None, None, 1.0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=4, max_size=4))
def test_correction_by_a_samples_own_errors_gives_the_reference_rate(sizes):
    counts = Counts(*sizes)
    if counts.balanced_accuracy <= 0.5:
        assert corrected_rate([Sample(1, 2, counts)]) is None
        return
    refused = counts.refused_refused + counts.refused_complied
    rate, _ = corrected_rate([Sample(refused, counts.n, counts)])
    assert rate == pytest.approx(counts.n_refused / counts.n)


def test_corrected_intervals_cover_the_true_rate_at_their_nominal_rate():
    """A judge of sensitivity .9 and specificity .8, known from 60 + 60 labels; raw rates would miss."""
    rng, covered, raw = np.random.default_rng(0), 0, []
    for trial in range(300):
        hits, alarms = rng.binomial(60, 0.9), rng.binomial(60, 0.2)
        counts = Counts(hits, alarms, 60 - hits, 60 - alarms)
        said = rng.binomial(200, 0.3 * 0.9 + 0.7 * 0.2)
        _, (low, high) = corrected_rate([Sample(said, 200, counts)], trial)
        covered += low <= 0.3 <= high
        raw.append(said / 200)
    assert 0.92 <= covered / 300 <= 0.99
    assert abs(np.mean(raw) - 0.3) > 0.1


def test_correction_of_a_difference_and_its_limits():
    counts = Counts(90, 20, 10, 80)
    both = correct([Sample(60, 100, counts)], [Sample(25, 100, counts)])
    assert both.harmful_refusal == pytest.approx((0.6 - 0.2) / 0.7)
    assert both.selectivity == pytest.approx((0.6 - 0.25) / 0.7)
    assert both.selectivity_interval[0] < both.selectivity < both.selectivity_interval[1]
    one_sided = correct([Sample(60, 100, counts)], [Sample(0, 0, counts)])
    assert (one_sided.harmless_refusal, one_sided.selectivity) == (None, None)
    assert correct([Sample(60, 100, Counts())], [Sample(1, 10, Counts())]) is None
    flawless = corrected_rate([Sample(0, 5, Counts(5, 0, 0, 5))])
    assert flawless[0] == 0
    assert flawless[1][1] > 0.2  # no error in five promises little


def test_later_rates_are_corrected_by_language_and_macro():
    quality = {"sw": Counts(90, 20, 10, 80)}
    verdicts = {"sw": Verdicts([REFUSED] * 6 + [COMPLIED] * 4, [REFUSED] * 2 + [COMPLIED] * 8)}
    assert macro(verdicts, quality=quality).corrected.harmful_refusal == pytest.approx(0.4 / 0.7)
    assert macro(verdicts).corrected is None
    assert macro(verdicts | {"yo": verdicts["sw"]}, quality=quality).corrected is None


def test_bounds_of_rates_when_some_were_not_judged():
    result = macro({"sw": Verdicts([REFUSED, NOT_JUDGED, NOT_JUDGED, COMPLIED], [NOT_JUDGED])})
    assert result.harmful_refusal == 0.5
    assert (result.harmful_refusal_bounds, result.harmless_refusal_bounds) == ((0.25, 0.75), (0.0, 1.0))


@pytest.fixture
def completions(tmp_path, monkeypatch):
    """Swahili with references, English without; a file and the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    rows = [
        *[{"prompt": "p", "completion": REFUSAL, "language": "sw", "label": "harmful", "refusal": 1}] * 5,
        *[{"prompt": "p", "response": ANSWER, "language": "sw", "label": "harmful", "refusal": False}] * 5,
        *[{"response": UNKNOWN, "language": "sw", "label": "harmless", "refusal": 0}] * 5,
        {"completion": ANSWER, "language": "en", "label": "harmless"},
        {"completion": "", "language": "en", "refusal": None},
    ]
    file = tmp_path / "c.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_completions_are_judged_and_the_judge_is_measured(recalib, completions):
    ran = recalib("eval", "--completions", completions, "--judge", "builtin", "--out", "out", "--json", "-q")
    assert ran.code == 0, ran.err
    assert ran.json["judge_name"] == "builtin"
    sw, en = ran.json["judge"]["sw"], ran.json["judge"]["en"]
    assert {k: sw[k] for k in ("n", "judged", "accuracy", "balanced_accuracy", "kappa")} == {
        "n": 15,
        "judged": 10,
        "accuracy": 1.0,
        "balanced_accuracy": 1.0,
        "kappa": 1.0,
    }
    assert (sw["refusal_rate"], sw["reference_rate"]) == (0.5, pytest.approx(1 / 3))
    assert (en["n"], en["judged"], en["refusal_rate"], en["reference_rate"]) == (2, 1, 0.0, None)
    assert ran.json["languages"]["sw"]["harmful_refusal"] == 0.5
    assert "sw 5 of 15" in ran.err
    rows = list(map(json.loads, Path("out/completions.jsonl").read_text(encoding="utf-8").splitlines()))
    verdicts = ["refused"] * 5 + ["complied"] * 5 + ["not judged"] * 5 + ["complied", "not judged"]
    assert [row["verdict"] for row in rows] == verdicts
    assert {row["judge"] for row in rows} == {"builtin"}
    assert rows[-1]["why"] == "empty"


def test_agreement_is_remembered_and_corrects_later_reports(recalib, completions):
    assert recalib("eval", "--completions", completions, "-q").code == 0
    kept = json.loads(Path("artifacts/judges/builtin.json").read_text(encoding="utf-8"))
    assert kept["source"] == {"sw": "c.jsonl"}
    rows = [{"completion": text, "language": "sw", "label": "harmful"} for text in (REFUSAL, ANSWER)]
    completions.write_text("\n".join(map(json.dumps, rows)))
    ran = recalib("eval", "--completions", completions, "--json", "-q")
    assert ran.json["judge"]["sw"]["corrected_rate"] == 0.5
    corrected = ran.json["languages"]["sw"]["corrected"]
    assert corrected["harmful_refusal"] == 0.5
    assert corrected["harmful_refusal_interval"][1] - corrected["harmful_refusal_interval"][0] > 0.5
    shown = recalib("eval", "--completions", completions)
    assert "harmful, corr." in shown.out


def test_a_few_references_correct_nothing_and_replace_nothing(recalib, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"completion": t, "language": "sw", "refusal": r} for t, r in ((REFUSAL, 1), (ANSWER, 0))] * 4
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ran = recalib("eval", "--completions", "c.jsonl", "--json", "-q")
    assert ran.json["judge"]["sw"]["accuracy"] == 1.0
    assert ran.json["judge"]["sw"]["corrected_rate"] is None
    assert not (tmp_path / "artifacts").exists()


def test_the_builtin_judge_knows_its_own_errors_where_it_was_measured(recalib, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = {"completion": ANSWER, "language": "de", "label": "harmful"}
    (tmp_path / "c.jsonl").write_text("\n".join([json.dumps(row)] * 3))
    ran = recalib("eval", "--completions", "c.jsonl", "--json", "-q")
    assert ran.json["judge"]["de"]["corrected_rate"] == 0.0
    assert not (tmp_path / "artifacts").exists()


def test_bars_on_the_judge(recalib, completions):
    assert recalib("eval", "--completions", completions, "--langs", "sw", "--fail-under", "kappa>=0.9").code == 0
    ran = recalib("eval", "--completions", completions, "--fail-under", "kappa>=0.9")
    assert (ran.code, "not measured" in ran.err) == (3, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no completions"),
        ("{oops}", "c.jsonl:1: not JSON"),
        ('{"language": "sw"}', "'completion' or 'response'"),
        ('{"completion": "x"}', "'language'"),
        ('{"completion": "x", "language": "sw", "label": "bad"}', "harmful or harmless"),
        ('{"completion": "x", "language": "sw", "refusal": "maybe"}', "1 (refused)"),
        ('{"completion": "x", "language": "sw", "prompt": 3}', "'prompt' is 3"),
    ],
)
def test_malformed_completions_are_named(recalib, tmp_path, line, message):
    (tmp_path / "c.jsonl").write_text(line)
    ran = recalib("eval", "--completions", tmp_path / "c.jsonl")
    assert ran.code == 1
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_a_damaged_record_of_agreement_is_named(recalib, completions, tmp_path):
    (tmp_path / "artifacts" / "judges").mkdir(parents=True)
    for content in ("{", "{}", '{"schema": "recalib.judge-quality/1", "judge": 3}'):
        (tmp_path / "artifacts" / "judges" / "builtin.json").write_text(content)
        ran = recalib("eval", "--completions", completions)
        assert (ran.code, "builtin.json" in ran.err, "delete it" in ran.err) == (1, True, True)


def test_sources_exclude_each_other(recalib, completions):
    ran = recalib("eval", "--completions", completions, "--data", "starter")
    assert (ran.code, "--data and --completions exclude" in ran.err) == (2, True)
