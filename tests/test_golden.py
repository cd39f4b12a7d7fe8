"""Agreement with what the released implementation answers on fixed inputs."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.stats import spearmanr

from recalib.calibration.calibrate import Context, Features, apply
from recalib.calibration.rules import RULES
from recalib.evaluation.gate_metrics import gate_metrics
from recalib.gate import directions
from recalib.gate.fitting import fit_gate
from recalib.gate.forms import Form, LanguageRows
from recalib.gate.readout import SourceRows
from recalib.gate.threshold import Threshold, best_f1
from recalib.routing.router import route

LABELS = ("harmful", "harmless")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def tensors(shared):
    return load_file(shared / "golden" / "gate.safetensors")


@pytest.fixture(scope="module")
def expected(shared):
    return json.loads((shared / "golden" / "gate.json").read_text())


@pytest.fixture(scope="module")
def sources(tensors, expected):
    return {lang: LanguageRows(*(tensors[f"{lang}.train.{label}"] for label in LABELS)) for lang in expected["sources"]}


@pytest.fixture(scope="module")
def fitted(sources, expected):
    return fit_gate(sources, Form("subspace", expected["rank"]))


def test_directions(tensors, sources):
    ours = np.stack([directions.mean_difference(s.harmful, s.harmless) for s in sources.values()])
    np.testing.assert_allclose(ours, tensors["out.directions"], **CLOSE)


def test_projector_of_the_subspace(tensors, fitted):
    np.testing.assert_allclose(fitted.fitted.basis @ fitted.fitted.basis.T, tensors["out.projector"], **CLOSE)


def test_pooled_direction(tensors, fitted):
    np.testing.assert_allclose(fitted.direction, tensors["out.pooled_direction"], **CLOSE)


def test_strength_and_its_quantiles(sources, fitted, expected):
    harmful, harmless = (np.concatenate([getattr(s, label) for s in sources.values()]) for label in LABELS)
    alpha = expected["alpha"]
    assert np.quantile(harmful @ fitted.direction, 0.75) == pytest.approx(alpha["harmful_q75"], rel=1e-4)
    assert np.quantile(harmless @ fitted.direction, 0.25) == pytest.approx(alpha["harmless_q25"], rel=1e-4)
    assert fitted.strength == pytest.approx(alpha["gap"], rel=1e-4)


def test_threshold_selection_on_fixed_scores(expected):
    cases = [case for case in expected["thresholds"] if case["objective"] == "balanced_macro_f1"]
    assert cases
    for case in cases:
        harmful, harmless = (np.array(case[label]) for label in LABELS)
        threshold = best_f1(harmful, harmless)
        assert threshold == pytest.approx(case["threshold"], rel=1e-4)
        metrics = gate_metrics(harmful, harmless, Threshold(threshold, "f1", len(harmful)))
        assert metrics.f1 == pytest.approx(case["score"], rel=1e-4)


def test_scores_rank_as_the_references(tensors, expected, fitted):
    for target in expected["targets"]:
        rows = np.concatenate([tensors[f"{target}.test.{label}"] for label in LABELS])
        reference = np.concatenate([tensors[f"out.b0.{target}.logits.{label}"] for label in LABELS])
        ours = fitted.fitted.scores(rows)
        assert spearmanr(ours, reference).statistic >= 0.998


def test_balanced_accuracy_is_not_below_the_references(tensors, expected, fitted):
    """Method f1 with the reference's own shots, over all of its gates."""
    ours, theirs = [], []
    paper = fitted.fitted
    context = Context(paper.readout, SourceRows(paper.features, paper.labels), prior=None)
    for gate in expected["gates"]:
        target, readout, threshold = gate["target"], paper.readout, paper.threshold
        if gate["budget"] > 0:
            picked = (tensors[f"{target}.train.{label}"][gate[f"shots_{label}"]] for label in LABELS)
            shots = [(rows @ paper.basis)[None] for rows in picked]
            calibrated = apply(RULES["f1"], context, Features(*shots, shots[0][:, :0]), seed=0)
            readout, threshold = calibrated.readouts[0], float(calibrated.thresholds[0])
        scores = [readout.scores(tensors[f"{target}.test.{label}"] @ paper.basis) for label in LABELS]
        metrics = gate_metrics(*scores, Threshold(threshold, "f1", gate["budget"]))
        ours.append(metrics.balanced_accuracy)
        theirs.append(gate["balanced_accuracy"])
    assert np.mean(ours) >= np.mean(theirs) - 0.005


@pytest.mark.parametrize("step", ["prefill", "decode"])
def test_routing(tensors, fitted, step):
    before = torch.tensor(tensors[f"out.route.{step}.in"])
    flagged = torch.tensor(tensors["out.route.mask"]) == 1
    direction = torch.tensor(fitted.direction, dtype=torch.float32)
    added = torch.ones(before.shape[:2], dtype=torch.bool)
    added[:, :-1] = step == "decode"
    after = route(before, flagged, added, direction, fitted.strength)
    np.testing.assert_allclose(after.numpy(), tensors[f"out.route.{step}.out"], **CLOSE)


def test_ablation(tensors, fitted):
    before = torch.tensor(tensors["out.route.prefill.in"])
    none = torch.zeros(before.shape[:2], dtype=torch.bool)
    after = route(before, none[:, 0], none, torch.tensor(fitted.direction, dtype=torch.float32), fitted.strength)
    np.testing.assert_allclose(after.numpy(), tensors["out.ablate.out"], **CLOSE)
