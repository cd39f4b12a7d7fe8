"""The score model and its rules: equivariance, coverage, and an independent implementation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from recalib.calibration.rules import RULES, credible_interval
from recalib.calibration.score_model import Scores, sample
from recalib.gate.prior import ScorePrior, estimate
from recalib.gate.summary import summarise

PRIOR = ScorePrior(center=(0.0, 3.0), gap=(8.0, 4.0), harmful_variance=4.0, harmless_variance=4.0)
FEW_EXAMPLES = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def a_language(rng, n=4, u=40, center=-3.0, gap=7.0):
    """Scores of one language: n shots a class, u unlabelled rows of which a quarter is harmful."""
    harmful, harmless = (rng.normal(center + sign * gap / 2, 2.0, n) for sign in (1, -1))
    rows = np.where(rng.random(u) < 0.25, center + gap / 2, center - gap / 2) + rng.normal(0, 2.0, u)
    return Scores.single(harmful, harmless, rows)


def change(scores, prior, scale, offset):
    """Scores and prior after s -> scale s + offset."""
    changed = Scores(*(scale * part + offset for part in (scores.harmful, scores.harmless, scores.unlabeled)))
    center, gap = prior.center, prior.gap
    return changed, ScorePrior(
        (scale * center[0] + offset, scale * center[1]),
        (scale * gap[0], scale * gap[1]),
        scale**2 * prior.harmful_variance,
        scale**2 * prior.harmless_variance,
    )


@pytest.mark.parametrize("method", sorted(RULES))
@FEW_EXAMPLES
@given(seeds, st.floats(0.01, 100), st.floats(-100, 100))
def test_thresholds_are_equivariant_under_affine_changes_of_the_score(method, seed, scale, offset):
    scores = a_language(np.random.default_rng(seed))
    plain = RULES[method].thresholds(scores, PRIOR, 0)
    changed = RULES[method].thresholds(*change(scores, PRIOR, scale, offset), 0)
    np.testing.assert_allclose(changed, scale * plain + offset, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("method", sorted(RULES))
@FEW_EXAMPLES
@given(seeds)
def test_the_order_of_rows_does_not_matter(method, seed):
    rng = np.random.default_rng(seed)
    scores = a_language(rng)
    shuffled = Scores(*(rng.permuted(part, axis=1) for part in (scores.harmful, scores.harmless, scores.unlabeled)))
    plain, again = (RULES[method].thresholds(s, PRIOR, 0) for s in (scores, shuffled))
    np.testing.assert_allclose(again, plain, rtol=1e-6)


@pytest.mark.parametrize("method", ["f1", "midpoint"])
@FEW_EXAMPLES
@given(seeds)
def test_rules_without_a_prior_ignore_duplication_of_all_rows(method, seed):
    """The others may not: twice the rows is twice the evidence against the prior."""
    scores = a_language(np.random.default_rng(seed))
    doubled = Scores(np.tile(scores.harmful, 2), np.tile(scores.harmless, 2), scores.unlabeled)
    plain, again = (RULES[method].thresholds(s, None, 0) for s in (scores, doubled))
    np.testing.assert_allclose(again, plain, rtol=1e-9)


def test_many_shots_overrule_the_prior(rng):
    """Sixty standard deviations of the prior's center away, the data alone decide."""
    far = a_language(rng, n=200, u=0, center=-60.0)
    none = Scores(far.harmful, far.harmless, far.unlabeled)
    assert RULES["shrunk"].thresholds(none, PRIOR, 0)[0] == pytest.approx(-60.0, abs=0.5)
    few = a_language(rng, n=4, u=0, center=-60.0)
    assert RULES["shrunk"].thresholds(few, PRIOR, 0)[0] == pytest.approx(-60.0, abs=2.5)


def test_the_mixture_agrees_with_scikit_learns_where_the_models_coincide(rng):
    """With many rows the prior hardly matters, and both are the maximum likelihood fit."""
    rows = np.concatenate([rng.normal(5, 1.5, 600), rng.normal(-3, 1.0, 1400)])
    none = np.empty((1, 0))
    posterior = sample(PRIOR, Scores(none, none, rows[None]))
    fitted = GaussianMixture(2, random_state=0, tol=1e-8, max_iter=1000).fit(rows[:, None])
    low, high = np.argsort(fitted.means_[:, 0])
    assert posterior.harmful_mean.mean() == pytest.approx(fitted.means_[high, 0], abs=0.05)
    assert posterior.harmless_mean.mean() == pytest.approx(fitted.means_[low, 0], abs=0.05)
    assert posterior.harmful_variance.mean() == pytest.approx(fitted.covariances_[high, 0, 0], rel=0.1)
    assert posterior.harmless_variance.mean() == pytest.approx(fitted.covariances_[low, 0, 0], rel=0.1)
    assert posterior.prevalence.mean() == pytest.approx(fitted.weights_[high], abs=0.02)


@pytest.mark.parametrize("prevalence", [0.05, 0.2, 0.8, 0.95])
def test_unlabelled_rows_of_any_prevalence_place_the_threshold(prevalence):
    rng = np.random.default_rng(1)
    harmful = round(200 * prevalence)
    rows = np.concatenate([rng.normal(1.0, 2.0, harmful), rng.normal(-9.0, 2.0, 200 - harmful)])
    none = np.empty((1, 0))
    threshold = RULES["mixture"].thresholds(Scores(none, none, rows[None]), PRIOR, 0)[0]
    assert -6.5 < threshold < -1.5


def languages_from_the_prior(rng, count):
    """Parameters [count] of languages drawn from PRIOR: center, gap, and both standard deviations."""
    center = PRIOR.center[0] + PRIOR.center[1] * rng.standard_t(4, count)
    gap = np.empty(0)
    while len(gap) < count:
        drawn = PRIOR.gap[0] + PRIOR.gap[1] * rng.standard_t(4, 2 * count)
        gap = np.concatenate([gap, drawn[drawn > 0]])[:count]
    sds = [np.sqrt(4 * variance / rng.chisquare(4, count)) for variance in (4.0, 4.0)]
    return center, gap, *sds


@pytest.mark.parametrize(("n", "u"), [(1, 0), (4, 0), (4, 64), (0, 64)])
def test_intervals_cover_at_their_nominal_rate(n, u):
    """Languages drawn from the prior, rows from the languages: 95 % of the intervals hold the best boundary."""
    count, rng = 1000, np.random.default_rng([n, u])
    center, gap, harmful_sd, harmless_sd = languages_from_the_prior(rng, count)
    means = center + gap / 2, center - gap / 2
    shots = [
        rng.normal(m[:, None], sd[:, None], (count, n)) for m, sd in zip(means, (harmful_sd, harmless_sd), strict=True)
    ]
    is_harmful = rng.random((count, u)) < rng.uniform(0.05, 0.95, (count, 1))
    rows = np.where(
        is_harmful,
        rng.normal(means[0][:, None], harmful_sd[:, None], (count, u)),
        rng.normal(means[1][:, None], harmless_sd[:, None], (count, u)),
    )
    low, high = credible_interval(sample(PRIOR, Scores(*shots, rows)))
    best = best_boundary(*means, harmful_sd, harmless_sd)
    covered = ((low <= best) & (best <= high)).mean()
    assert covered == pytest.approx(0.95, abs=0.025)


def best_boundary(harmful_mean, harmless_mean, harmful_sd, harmless_sd):
    """The threshold of highest balanced accuracy of two normals, by search between the means."""
    from scipy.stats import norm

    share = np.linspace(0, 1, 2001)[:, None]
    thresholds = harmless_mean + share * (harmful_mean - harmless_mean)
    errors = norm.cdf(thresholds, harmful_mean, harmful_sd) + norm.sf(thresholds, harmless_mean, harmless_sd)
    return thresholds[errors.argmin(0), np.arange(len(harmful_mean))]


def test_the_prior_widens_with_what_was_calibrated_far_away(rng):
    sources = [summarise(rng.normal(4, 2, 100), rng.normal(-4, 2, 100)) for _ in range(8)]
    far = [summarise(rng.normal(-6, 2, 8), rng.normal(-14, 2, 8)) for _ in range(3)]
    plain, informed = estimate(sources), estimate(sources, far)
    assert informed.center[0] < plain.center[0] - 1
    assert informed.center[1] > plain.center[1]
    assert plain.gap[0] == pytest.approx(8, abs=0.5)
    assert plain.harmful_variance == pytest.approx(4, rel=0.3)
