"""Threshold rules, shots and fitting: properties that must hold for any data."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score

from recalib.calibration.calibrate import LanguageShots, calibrate
from recalib.calibration.rules import RULES, Shots
from recalib.calibration.shots import draw
from recalib.errors import CalibrationError
from recalib.gate import directions, selection
from recalib.gate.fitting import LanguageRows, fit_gate
from recalib.gate.gate import Gate, GateMeta
from recalib.gate.readout import Readout, SourceRows, fit
from recalib.gate.threshold import Threshold, best_f1

finite = st.floats(-100, 100, width=32)
scores = arrays(np.float64, st.integers(1, 12), elements=finite)
IDENTITY = Readout(np.zeros(1), np.ones(1), np.ones(1), 0.0)
NO_SOURCE = SourceRows(np.empty((0, 1)), np.empty(0))


def separable(rng, n=40, hidden=12, shift=0.0, gap=4.0):
    direction = np.eye(hidden)[0]
    harmless = rng.normal(size=(n, hidden)) + shift * direction
    return LanguageRows(rng.normal(size=(n, hidden)) + (shift + gap) * direction, harmless)


def a_gate(rng):
    fitted = fit_gate({code: separable(rng) for code in ("en", "de", "fr")}, rank=2)
    threshold = Threshold(fitted.threshold, "transferred", 0)
    meta = GateMeta(0, "t_post_inst", fitted.strength, threshold)
    return Gate(fitted.direction, fitted.basis, fitted.readout, fitted.source, meta)


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


@given(scores, scores, st.floats(0.1, 10), st.floats(-10, 10))
def test_midpoint_is_equivariant_under_affine_changes_of_the_score(harmful, harmless, scale, offset):
    assume(harmful.mean() > harmless.mean() + 1e-3)
    shots = Shots(harmful[:, None], harmless[:, None])
    plain = RULES["midpoint"](IDENTITY, NO_SOURCE, shots).threshold
    changed = Readout(np.zeros(1), np.ones(1), np.array([scale]), offset)
    assert RULES["midpoint"](changed, NO_SOURCE, shots).threshold == pytest.approx(scale * plain + offset, abs=1e-6)


@given(scores, scores, st.randoms())
def test_midpoint_ignores_row_order_and_duplication_of_all_rows(harmful, harmless, random):
    assume(harmful.mean() > harmless.mean() + 1e-3)
    shuffled = np.array(random.sample(list(harmful), len(harmful)))
    plain = RULES["midpoint"](IDENTITY, NO_SOURCE, Shots(harmful[:, None], harmless[:, None])).threshold
    doubled = Shots(np.tile(shuffled, 2)[:, None], np.tile(harmless, 2)[:, None])
    assert RULES["midpoint"](IDENTITY, NO_SOURCE, doubled).threshold == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("method", sorted(RULES))
def test_inverted_shots_are_refused_and_nothing_is_calibrated(method, rng):
    gate = a_gate(rng)
    rows = separable(rng, n=20, gap=8.0)
    good, bad = LanguageShots(rows.harmful, rows.harmless), LanguageShots(rows.harmless, rows.harmful)
    with pytest.raises(CalibrationError, match=r"nothing was calibrated: yo: the scores are inverted") as caught:
        calibrate(gate, {"sw": good, "yo": bad}, method, 0, "test")
    assert "--seed" in caught.value.fix
    assert set(calibrate(gate, {"sw": good}, method, 0, "test").meta.thresholds) == {"sw"}


@pytest.mark.parametrize("method", sorted(RULES))
def test_a_shifted_language_is_recovered(method, rng):
    """Its scores lie far below the sources': the transferred threshold misses all, four shots do not."""
    gate = a_gate(rng)
    train, test = separable(rng, n=4, shift=-5.0), separable(rng, n=200, shift=-5.0)
    assert gate.flags(test.harmful, "sw").mean() < 0.3
    calibrated = calibrate(gate, {"sw": LanguageShots(train.harmful, train.harmless)}, method, 0, "test")
    assert calibrated.flags(test.harmful, "sw").mean() > 0.8
    assert calibrated.flags(test.harmless, "sw").mean() < 0.2
    np.testing.assert_array_equal(calibrated.flags(test.harmful, "yo"), gate.flags(test.harmful, "yo"))


def test_calibrating_again_replaces_a_refit(rng):
    gate = a_gate(rng)
    rows = separable(rng, n=4, shift=-2.0)
    shots = {"sw": LanguageShots(rows.harmful, rows.harmless)}
    refitted = calibrate(gate, shots, "f1", 0, "test")
    assert "sw" in refitted.refits
    assert "sw" not in calibrate(refitted, shots, "midpoint", 0, "test").refits


def test_f1_needs_the_source_rows(rng):
    gate = a_gate(rng)
    bare = Gate(gate.direction, gate.basis, gate.readout, SourceRows(np.empty((0, 2)), np.empty(0)), gate.meta)
    rows = separable(rng, n=4)
    with pytest.raises(CalibrationError, match="carries none"):
        calibrate(bare, {"sw": LanguageShots(rows.harmful, rows.harmless)}, "f1", 0, "test")


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


def test_the_layer_that_transfers_wins_and_ties_go_to_the_earlier(rng):
    languages = ("en", "de", "fr", "es")
    layers = {
        0: {code: separable(rng, gap=0.5) for code in languages},
        1: {code: separable(rng, gap=20.0) for code in languages},
        2: {code: separable(rng, gap=20.0) for code in languages},
        # separates each language perfectly, but each at another threshold
        3: {code: separable(rng, gap=20.0, shift=60.0 * i) for i, code in enumerate(languages)},
    }
    layer, candidates = selection.choose_layer(sorted(layers), layers.__getitem__, rank=2)
    assert layer == 1
    accuracy = {c.layer: c.balanced_accuracy for c in candidates}
    assert accuracy[1] == pytest.approx(1.0)
    assert accuracy[0] < 0.8
    assert accuracy[3] < 0.8
