"""Choosing layer, rank and readout: what transfers wins, and sources that do not are left out."""

import numpy as np
import pytest

from recalib.errors import CalibrationError
from recalib.gate.forms import Form, LanguageRows, fit_forms
from recalib.gate.selection import candidate_forms, choose

LANGUAGES = ("en", "de", "fr", "es", "it")
SUBSPACE = [Form("subspace", 2)]


def rows(rng, n=40, hidden=12, shift=0.0, gap=4.0, axis=0):
    direction = np.eye(hidden)[axis]
    harmless = rng.normal(size=(n, hidden)) + shift * np.eye(hidden)[0]
    return LanguageRows(rng.normal(size=(n, hidden)) + shift * np.eye(hidden)[0] + gap * direction, harmless)


def test_the_layer_that_transfers_wins_and_ties_go_to_the_earlier(rng):
    layers = {
        0: {code: rows(rng, gap=0.5) for code in LANGUAGES},
        1: {code: rows(rng, gap=20.0) for code in LANGUAGES},
        2: {code: rows(rng, gap=20.0) for code in LANGUAGES},
        # separates each language perfectly, but each at another threshold
        3: {code: rows(rng, gap=20.0, shift=60.0 * i) for i, code in enumerate(LANGUAGES)},
    }
    selected = choose(sorted(layers), layers.__getitem__, SUBSPACE)
    assert selected.chosen.layer == 1
    accuracy = {c.layer: c.balanced_accuracy for c in selected.candidates}
    assert accuracy[1] == pytest.approx(1.0)
    assert accuracy[0] < 0.8
    assert accuracy[3] < 0.8
    assert not selected.left_out


def test_every_combination_is_a_candidate_and_ties_go_to_the_lower_rank(rng):
    layers = {i: {code: rows(rng, gap=20.0) for code in LANGUAGES} for i in range(2)}
    forms = candidate_forms(len(LANGUAGES))
    assert forms == (*(Form("subspace", rank) for rank in (1, 2, 4, 5)), Form("ridge", 1))
    selected = choose(sorted(layers), layers.__getitem__, forms)
    assert len(selected.candidates) == 2 * len(forms)
    assert (selected.chosen.layer, selected.chosen.rank) == (0, 1)


def test_the_ridge_wins_where_no_class_difference_is_the_best_direction(rng):
    """Strong common noise along the class difference, which another axis lets a readout subtract."""

    def correlated(n=400, hidden=20):
        noise = 6 * rng.normal(size=(2, n, 1))
        parts = []
        for label, common in enumerate(noise):
            part = 0.5 * rng.normal(size=(n, hidden))
            part[:, :1] += 3 * label + common
            part[:, 1:2] += common
            parts.append(part)
        return LanguageRows(parts[1], parts[0])

    layer = {code: correlated() for code in LANGUAGES}
    selected = choose([0], lambda _: layer, [Form("subspace", 1), Form("ridge", 1)])
    assert selected.chosen.readout == "ridge"
    by_readout = {c.readout: c.balanced_accuracy for c in selected.candidates}
    assert by_readout["ridge"] > by_readout["subspace"] + 0.1


def test_a_ridge_readout_gives_the_regressions_own_scores(rng):
    """As a basis of rank 1 with a readout it is the same linear function of the residual."""
    from sklearn.linear_model import LogisticRegression

    sources = {code: rows(rng) for code in LANGUAGES}
    (fitted,) = fit_forms(sources, [Form("ridge", 1)])
    stacked = np.concatenate([s.harmful for s in sources.values()] + [s.harmless for s in sources.values()])
    standardised = (stacked - stacked.mean(0)) / stacked.std(0)
    regression = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000).fit(standardised, fitted.labels)
    np.testing.assert_allclose(fitted.scores(stacked), regression.decision_function(standardised), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(fitted.basis), 1)


@pytest.mark.parametrize("kind", ["inverted", "chance"])
def test_a_source_that_the_others_rank_at_chance_is_left_out(rng, kind):
    layer = {code: rows(rng) for code in LANGUAGES}
    layer["ja"] = rows(rng, gap=-4.0) if kind == "inverted" else rows(rng, gap=4.0, axis=5)
    selected = choose([0], lambda _: layer, SUBSPACE)
    assert set(selected.left_out) == {"ja"}
    assert selected.left_out["ja"] <= 0.6
    assert set(selected.held_out) == set(LANGUAGES)
    kept = choose([0], lambda _: layer, SUBSPACE, keep_all_sources=True)
    assert set(kept.held_out) == {*LANGUAGES, "ja"}
    assert selected.chosen.balanced_accuracy > kept.chosen.balanced_accuracy


def test_where_nothing_transfers_no_source_is_to_blame(rng):
    layer = {code: rows(rng, gap=0.0) for code in LANGUAGES}
    selected = choose([0], lambda _: layer, SUBSPACE)
    assert set(selected.held_out) == set(LANGUAGES)
    assert selected.chosen.balanced_accuracy < 0.65


def test_a_layer_without_any_difference_counts_as_chance(rng):
    same = np.ones((5, 12))
    layers = {0: {code: LanguageRows(same, same) for code in LANGUAGES}, 1: {code: rows(rng) for code in LANGUAGES}}
    assert choose([0, 1], layers.__getitem__, SUBSPACE).chosen.layer == 1
    with pytest.raises(CalibrationError, match="same mean"):
        fit_forms(layers[0], SUBSPACE)
