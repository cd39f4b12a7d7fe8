"""Finite-sample guarantees: in simulation, at the edge of what shots can carry, and on the command line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recalib.calibration.guarantee import bounded, highest, lowest, shots_needed
from recalib.calibration.support import sentence
from recalib.errors import BarNotMet
from recalib.gate.threshold import Guarantee, Threshold
from recalib.intervals import exact, size_for

TRIALS = 4000


def a_threshold(value, harmful, harmless):
    scores = {"harmful_scores": tuple(map(float, harmful)), "harmless_scores": tuple(map(float, harmless))}
    return Threshold(value, "midpoint", len(harmful), **scores)


@pytest.mark.parametrize("distribution", ["normal", "cauchy", "atoms"])
@pytest.mark.parametrize(("n", "rate", "confidence"), [(45, 0.05, 0.9), (60, 0.1, 0.95), (200, 0.05, 0.9)])
def test_bounds_hold_at_their_confidence(distribution, n, rate, confidence):
    rng = np.random.default_rng(n)
    draws = {
        "normal": rng.standard_normal((TRIALS, n)),
        "cauchy": rng.standard_cauchy((TRIALS, n)),
        "atoms": rng.poisson(3.0, (TRIALS, n)).astype(float),
    }[distribution]

    law = {"normal": stats.norm(), "cauchy": stats.cauchy(), "atoms": stats.poisson(3.0)}[distribution]
    above = np.array([lowest(row, rate, confidence) for row in draws])
    below = np.array([highest(row, rate, confidence) for row in draws])
    false_flag = 1 - law.cdf(np.ceil(above) - 1 if distribution == "atoms" else above)  # of scores at or above it
    miss = law.cdf(np.ceil(below) - 1 if distribution == "atoms" else below)  # of scores below it
    tolerance = 3 * np.sqrt(confidence * (1 - confidence) / TRIALS)
    assert (false_flag <= rate).mean() >= confidence - tolerance
    assert (miss <= rate).mean() >= confidence - tolerance
    if distribution != "atoms" and n == 200:  # and no looser threshold would do
        assert (false_flag <= rate).mean() <= confidence + 0.06


@given(st.floats(0.01, 0.5), st.floats(0.5, 0.99))
def test_the_number_needed_is_the_first_that_suffices(rate, confidence):
    needed = shots_needed(rate, confidence)
    scores = np.arange(float(needed))
    assert lowest(scores, rate, confidence) is not None
    assert lowest(scores[1:], rate, confidence) is None
    assert highest(scores, rate, confidence) is not None


def test_a_guarantee_moves_the_threshold_no_farther_than_it_must():
    harmful, harmless = np.linspace(5, 15, 60), np.linspace(-15, -5, 60)
    both = Guarantee(0.9, max_false_flag=0.05, max_miss=0.05)
    kept = bounded(a_threshold(0.0, harmful, harmless), both, "sw")
    assert (kept.value, kept.defer_from) == (0.0, None)
    assert bounded(a_threshold(-12.0, harmful, harmless), both, "sw").value == pytest.approx(-5, abs=0.4)
    assert bounded(a_threshold(12.0, harmful, harmless), both, "sw").value == pytest.approx(5, abs=0.4)


def test_prompts_that_neither_bound_covers_are_deferred():
    harmful, harmless = np.linspace(-5, 15, 60), np.linspace(-15, 5, 60)
    kept = bounded(a_threshold(0.0, harmful, harmless), Guarantee(0.9, 0.05, 0.05), "sw")
    assert kept.defer_from < 0 < kept.value
    scores = np.array([kept.defer_from - 0.1, kept.defer_from, kept.value - 0.1, kept.value])
    assert kept.flags(scores).tolist() == [False, False, False, True]
    assert kept.defers(scores).tolist() == [False, True, True, False]


def test_too_few_shots_name_the_number_needed():
    threshold = a_threshold(0.0, np.ones(4), -np.ones(4))
    with pytest.raises(BarNotMet, match="at least 45") as caught:
        bounded(threshold, Guarantee(0.9, max_false_flag=0.05), "sw")
    assert caught.value.exit_code == 3
    assert "--shots 45" in caught.value.fix


def test_the_plain_sentence_states_exact_bounds():
    """Four shots without an error leave 60 % possible (two-sided 95 %)."""
    text = sentence("sw", a_threshold(0.0, np.ones(4), -np.ones(4)))
    assert "0 of 4 harmful shots missed" in text
    assert "60 % missed and 60 % flagged" in text
    assert f"takes {size_for(0.0, 0.05)} fresh" in text
    assert "without labelled" in sentence("sw", Threshold(0.0, "mixture", 0))


@given(st.sampled_from([0.0, 0.1, 0.25, 0.5]), st.sampled_from([0.05, 0.1, 0.2]))
def test_the_size_for_a_width_is_where_the_exact_interval_gets_that_narrow(rate, half_width):
    n = size_for(rate, half_width)
    low, high = exact(round(rate * n), n)
    assert high - low <= 2 * half_width
    smaller = max(1, int(0.8 * n))
    low, high = exact(round(rate * smaller), smaller)
    assert high - low > 2 * half_width
