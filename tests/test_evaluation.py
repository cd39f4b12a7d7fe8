"""Metrics, intervals, bars and the judge of the embedded model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from recalib.errors import UsageError
from recalib.evaluation.bars import parse_bar
from recalib.evaluation.gate_metrics import gate_metrics
from recalib.evaluation.refusal import Verdicts, macro
from recalib.gate.threshold import Threshold
from recalib.intervals import exact, macro_difference
from recalib.judges import Outcome, Verdict, find
from recalib.organism import world
from recalib.routing.generation import Completion

lists = st.lists(st.integers(-5, 5), min_size=1, max_size=20)


@given(lists, lists, st.integers(-6, 6))
def test_gate_metrics_against_scikit_learn(harmful, harmless, value):
    metrics = gate_metrics(np.array(harmful), np.array(harmless), Threshold(value, "m", 1))
    labels = np.array([1] * len(harmful) + [0] * len(harmless))
    scores = np.array(harmful + harmless)
    assert metrics.auc == pytest.approx(roc_auc_score(labels, scores))
    assert metrics.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, scores >= value))
    assert metrics.false_flag_interval[0] <= metrics.false_flag_rate <= metrics.false_flag_interval[1]
    assert metrics.miss_interval[0] <= metrics.miss_rate <= metrics.miss_interval[1]


def test_a_class_without_rows_is_not_measured():
    metrics = gate_metrics(np.array([1.0]), np.empty(0), Threshold(0.0, "m", 1))
    assert metrics.auc is metrics.balanced_accuracy is metrics.f1 is metrics.false_flag_rate is None
    assert metrics.miss_rate == 0
    assert (metrics.n_harmful, metrics.n_harmless) == (1, 0)


def test_exact_intervals_at_known_values():
    """With no error in n the upper limit solves (1 - p)^n = alpha / 2."""
    for n in (1, 4, 16):
        assert exact(0, n) == pytest.approx((0, 1 - 0.025 ** (1 / n)))
        assert exact(n, n) == pytest.approx((0.025 ** (1 / n), 1))
    assert exact(0, 0) is None


def test_bootstrap_covers_the_true_difference_at_its_nominal_rate():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        groups = [(rng.binomial(1, 0.7, 60).astype(float), rng.binomial(1, 0.2, 60).astype(float)) for _ in range(3)]
        low, high = macro_difference(groups)
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.99


def verdicts(text, language="sw"):
    outcomes = {
        "r": Verdict(Outcome.REFUSED, "organism", language),
        "c": Verdict(Outcome.COMPLIED, "organism"),
        "-": Verdict(Outcome.NOT_JUDGED, "organism"),
        "d": Verdict(Outcome.REFUSED, "organism", "de"),
    }
    return [outcomes[letter] for letter in text]


def test_refusal_rates():
    result = macro({"sw": Verdicts(verdicts("rrrc"), verdicts("cccd"))})
    assert (result.harmful_refusal, result.harmless_refusal, result.selectivity) == (0.75, 0.25, 0.5)
    assert result.own_language_share == 0.75
    assert result.harmful_refusal_interval == exact(3, 4)
    both = macro({"sw": Verdicts(verdicts("rrrc"), verdicts("cccd")), "yo": Verdicts(verdicts("c"), verdicts("c"))})
    assert (both.harmful_refusal, both.selectivity) == (0.375, 0.25)
    assert (both.n_harmful, both.n_harmless) == (5, 5)


def test_what_was_not_judged_is_neither_refused_nor_complied():
    result = macro({"th": Verdicts(verdicts("r-"), verdicts("--"))})
    assert (result.harmful_refusal, result.harmless_refusal, result.selectivity) == (1.0, None, None)
    assert (result.n_harmful, result.n_harmless, result.not_judged) == (1, 0, 3)


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_the_organisms_judge_tells_the_language_of_a_refusal(language):
    lexicon = world.load_lexicon(language)
    pair = world.prompt_pairs("test")[0]
    texts = [lexicon.refuse, lexicon.fill(lexicon.comply, pair), "", "sorry"]
    given_verdicts = find("organism").judge([Completion("p", language, text, 0.0, 0.0, False) for text in texts])
    complied = Verdict(Outcome.COMPLIED, "organism")
    assert given_verdicts == [Verdict(Outcome.REFUSED, "organism", language), *[complied] * 3]


def test_bars():
    bar = parse_bar(" selectivity >= 0.5 ", ("selectivity",))
    assert bar.met_by({"selectivity": 0.5})
    assert not bar.met_by({"selectivity": 0.49})
    assert not bar.met_by({"selectivity": None})
    assert parse_bar("miss_rate<.1", ("miss_rate",)).met_by({"miss_rate": 0.05})
    for text in ("selectivity", "selectivity=0.5", "other>=0.5", "selectivity>=x", ""):
        with pytest.raises(UsageError):
            parse_bar(text, ("selectivity",))
