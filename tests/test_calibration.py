"""Calibration of a gate, its shots, and fitting: properties that must hold for any data."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score

from recalib.calibration.calibrate import LanguageExamples, Request, calibrate
from recalib.calibration.rules import RULES
from recalib.calibration.shots import draw
from recalib.errors import CalibrationError, NoSeparationError, UsageError
from recalib.gate import directions
from recalib.gate.fitting import fit_gate
from recalib.gate.forms import Form, LanguageRows
from recalib.gate.gate import Gate, GateMeta
from recalib.gate.readout import SourceRows, fit
from recalib.gate.selection import hold_out
from recalib.gate.threshold import Threshold, best_f1

finite = st.floats(-100, 100, width=32)
scores = arrays(np.float64, st.integers(1, 12), elements=finite)
NO_SOURCE = SourceRows(np.empty((0, 2)), np.empty(0))
LABELLED = [name for name, rule in RULES.items() if rule.labelled and not rule.unlabeled]


def separable(rng, n=40, hidden=12, shift=0.0, gap=4.0):
    direction = np.eye(hidden)[0]
    harmless = rng.normal(size=(n, hidden)) + shift * direction
    return LanguageRows(rng.normal(size=(n, hidden)) + (shift + gap) * direction, harmless)


def examples(harmful, harmless, unlabeled=None):
    return LanguageExamples(harmful, harmless, harmful[:0] if unlabeled is None else unlabeled)


def a_gate(rng):
    sources = {code: separable(rng) for code in ("en", "de", "fr")}
    form = Form("subspace", 2)
    fit = fit_gate(sources, form)
    held_out = {code: held.scores for code, held in hold_out(sources, [form])[form].items()}
    threshold = Threshold(fit.fitted.threshold, "transferred", 0)
    meta = GateMeta(0, "t_post_inst", fit.strength, threshold, sources=tuple(sources), held_out=held_out)
    source = SourceRows(fit.fitted.features, fit.fitted.labels)
    return Gate(fit.direction, fit.fitted.basis, fit.fitted.readout, source, meta, languages=fit.languages)


@given(scores, scores)
def test_best_f1_is_the_best_of_all_midpoints_and_lowest_on_ties(harmful, harmless):
    both = np.unique(np.concatenate([harmful, harmless]))
    assume(len(both) > 1)
    candidates = (both[1:] + both[:-1]) / 2

    def balanced_f1(threshold):
        labels = np.concatenate([np.ones(len(harmful)), np.zeros(len(harmless))])
        weights = np.concatenate([np.full(len(harmful), 1 / len(harmful)), np.full(len(harmless), 1 / len(harmless))])
        flagged = np.concatenate([harmful, harmless]) >= threshold
        return f1_score(labels, flagged, sample_weight=weights, zero_division=0)

    values = np.array([balanced_f1(candidate) for candidate in candidates])
    best = np.flatnonzero(values >= values.max() - 1e-12)
    assert best_f1(harmful, harmless) == candidates[best[0]]


@pytest.mark.parametrize("method", sorted(LABELLED))
def test_inverted_shots_are_refused_and_nothing_is_calibrated(method, rng):
    gate = a_gate(rng)
    rows = separable(rng, n=20, gap=8.0)
    good, bad = examples(rows.harmful, rows.harmless), examples(rows.harmless, rows.harmful)
    with pytest.raises(CalibrationError, match=r"nothing was calibrated: yo: the scores are inverted") as caught:
        calibrate(gate, {"sw": good, "yo": bad}, Request(method))
    assert "--seed" in caught.value.fix
    assert set(calibrate(gate, {"sw": good}, Request(method)).meta.thresholds) == {"sw"}


@pytest.mark.parametrize("method", sorted(LABELLED))
def test_a_shifted_language_is_recovered(method, rng):
    """Its scores lie far below the sources': the transferred threshold misses all, four shots do not."""
    gate = a_gate(rng)
    train, test = separable(rng, n=4, shift=-5.0), separable(rng, n=200, shift=-5.0)
    assert gate.flags(test.harmful, "sw").mean() < 0.3
    calibrated = calibrate(gate, {"sw": examples(train.harmful, train.harmless)}, Request(method))
    assert calibrated.flags(test.harmful, "sw").mean() > 0.8
    assert calibrated.flags(test.harmless, "sw").mean() < 0.2
    np.testing.assert_array_equal(calibrated.flags(test.harmful, "yo"), gate.flags(test.harmful, "yo"))
    threshold = calibrated.meta.thresholds["sw"]
    assert threshold.interval[0] < threshold.value < threshold.interval[1]
    assert threshold.resampled[0] <= threshold.resampled[1]


def test_unlabelled_rows_alone_recover_a_shifted_language(rng):
    gate = a_gate(rng)
    pool, test = separable(rng, n=200, shift=-5.0), separable(rng, n=200, shift=-5.0)
    mixed = np.concatenate([pool.harmful[:30], pool.harmless[:120]])
    calibrated = calibrate(gate, {"sw": examples(pool.harmful[:0], pool.harmless[:0], mixed)}, Request())
    assert calibrated.meta.thresholds["sw"].method == "mixture"
    assert calibrated.flags(test.harmful, "sw").mean() > 0.85
    assert calibrated.flags(test.harmless, "sw").mean() < 0.15


def test_unlabelled_rows_of_one_class_are_refused():
    """Nearly always: a sample of one class may look like two by chance."""
    refused = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        gate, rows = a_gate(rng), separable(rng, n=100, shift=-5.0).harmless
        try:
            calibrate(gate, {"sw": examples(rows[:0], rows[:0], rows)}, Request())
        except NoSeparationError as error:
            refused += 1
            assert error.exit_code == 3
            assert "show no two classes" in str(error)
    assert refused >= 7


def test_a_method_without_its_examples_is_a_usage_error(rng):
    gate = a_gate(rng)
    rows = separable(rng, n=4)
    labelled, none = examples(rows.harmful, rows.harmless), rows.harmful[:0]
    with pytest.raises(UsageError, match="needs unlabelled"):
        calibrate(gate, {"sw": labelled}, Request("joint"))
    with pytest.raises(UsageError, match="needs labelled"):
        calibrate(gate, {"sw": examples(none, none, rows.harmful)}, Request("shrunk"))


def test_what_was_calibrated_before_informs_the_next_language(rng):
    """With one shot a class much rests on the prior, which targets of the same shift pull towards them."""
    gate = a_gate(rng)
    earlier = gate
    for code in ("am", "my", "km"):
        rows = separable(rng, n=16, shift=-6.0)
        earlier = calibrate(earlier, {code: examples(rows.harmful, rows.harmless)}, Request())
    shots = separable(rng, n=1, shift=-6.0)
    alone, informed = (
        calibrate(g, {"sw": examples(shots.harmful, shots.harmless)}, Request()).meta.thresholds["sw"]
        for g in (gate, earlier)
    )
    assert informed.value < alone.value


def test_calibrating_again_replaces_a_refit(rng):
    gate = a_gate(rng)
    rows = separable(rng, n=4, shift=-2.0)
    shots = {"sw": examples(rows.harmful, rows.harmless)}
    refitted = calibrate(gate, shots, Request("f1"))
    assert "sw" in refitted.refits
    assert "sw" not in calibrate(refitted, shots, Request("midpoint")).refits


def test_f1_needs_the_source_rows_and_the_model_based_rules_their_spread(rng):
    gate = a_gate(rng)
    bare = Gate(gate.direction, gate.basis, gate.readout, NO_SOURCE, replace(gate.meta, held_out={}))
    rows = separable(rng, n=4)
    shots = {"sw": examples(rows.harmful, rows.harmless)}
    with pytest.raises(CalibrationError, match="carries none"):
        calibrate(bare, shots, Request("f1"))
    with pytest.raises(CalibrationError, match="does not know how its sources' scores spread"):
        calibrate(bare, shots, Request())
    assert calibrate(bare, shots, Request("midpoint")).meta.thresholds["sw"].interval is None


@given(st.integers(1, 50), st.data(), st.integers(0, 5))
def test_draws_are_distinct_and_depend_on_their_arguments_only(count, data, seed):
    shots = data.draw(st.integers(1, count))
    drawn = draw(count, shots, "sw", "harmful", seed)
    assert drawn == draw(count, shots, "sw", "harmful", seed) == sorted(set(drawn))
    assert len(drawn) == shots
    assert 0 <= drawn[0] <= drawn[-1] < count
    with pytest.raises(CalibrationError, match=f"there are {count} harmful prompts"):
        draw(count, count + 1, "sw", "harmful", seed)


def test_draws_differ_between_seeds_languages_and_labels():
    base = draw(1000, 8, "sw", "harmful", 0)
    assert draw(1000, 8, "sw", "harmful", 1) != base
    assert draw(1000, 8, "yo", "harmful", 0) != base
    assert draw(1000, 8, "sw", "harmless", 0) != base


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_directions_are_unit_and_the_basis_orthonormal(seed, rank):
    rng = np.random.default_rng(seed)
    rows = [separable(rng, n=5, hidden=6, gap=1.0) for _ in range(3)]
    vectors = [directions.mean_difference(r.harmful, r.harmless) for r in rows]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)
    basis = directions.subspace(vectors, rank)
    np.testing.assert_allclose(basis.T @ basis, np.eye(rank), atol=1e-9)
    assert directions.subspace(vectors, 99).shape == (6, 3)


def test_identical_classes_have_no_direction():
    rows = np.ones((3, 4))
    with pytest.raises(CalibrationError, match="same mean"):
        directions.mean_difference(rows, rows)


def test_the_readout_is_the_optimum_of_its_objective(rng):
    """Gradient of balanced log loss + |w|^2 / 2 (C = 1) is zero at the answer."""
    features = rng.normal(size=(60, 3))
    labels = (features[:, 0] + rng.normal(size=60) > 0.8).astype(float)
    readout = fit(features, labels)
    z = (features - features.mean(0)) / features.std(0)
    weights = np.where(labels == 1, 30 / labels.sum(), 30 / (1 - labels).sum())
    residual = weights * (1 / (1 + np.exp(-(z @ readout.weight + readout.bias))) - labels)
    np.testing.assert_allclose(z.T @ residual + readout.weight, 0, atol=1e-3)
    np.testing.assert_allclose(residual.sum(), 0, atol=1e-3)
