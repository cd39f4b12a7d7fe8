"""Telling the language of a prompt from its activation."""

from dataclasses import replace

import numpy as np
import pytest

from recalib.gate.decision import decide
from recalib.gate.gate import Gate, GateMeta
from recalib.gate.identification import fit_map
from recalib.gate.readout import Readout, SourceRows
from recalib.gate.threshold import Threshold

HIDDEN = 20


def cloud(rng, at, n=50):
    """Rows around a language's mean, with much shared covariance along one axis."""
    noise = rng.normal(size=(n, HIDDEN))
    noise[:, 0] *= 10
    return noise + at


@pytest.fixture
def means(rng):
    return {code: 6 * rng.normal(size=HIDDEN) * (np.arange(HIDDEN) > 0) for code in ("en", "de", "sw", "ko")}


@pytest.fixture
def languages(rng, means):
    return fit_map({code: cloud(rng, means[code]) for code in ("en", "de")})


def test_rows_are_told_apart_and_strangers_are_unknown(rng, means, languages):
    assert set(languages.identify(cloud(rng, means["en"]))) == {"en"}
    assert set(languages.identify(cloud(rng, means["de"]))) == {"de"}
    assert set(languages.identify(cloud(rng, means["ko"]) + 30)) == {None}


def test_a_few_rows_teach_a_language(rng, means, languages):
    learned = languages.with_language("sw", cloud(rng, means["sw"], n=8))
    assert learned.names == ("en", "de", "sw")
    assert np.mean([code == "sw" for code in learned.identify(cloud(rng, means["sw"]))]) > 0.95
    assert set(learned.identify(cloud(rng, means["en"]))) == {"en"}
    again = learned.with_language("sw", cloud(rng, means["sw"], n=3))
    assert again.names == ("en", "de", "sw")
    assert not np.allclose(again.directions[-1], learned.directions[-1])


def test_whitening_gives_unit_covariance_within_languages(rng, languages, means):
    residuals = (cloud(rng, means["en"], n=4000) - means["en"]) @ languages.basis
    covariance = np.cov(residuals.T)
    assert np.diag(covariance).mean() == pytest.approx(1, abs=0.35)  # estimated on 100 rows
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 0.5


def a_gate(languages, **thresholds):
    readout = Readout(np.zeros(1), np.ones(1), np.ones(1), 0.0)
    known = {code: Threshold(value, "midpoint", 4) for code, value in thresholds.items()}
    meta = GateMeta(0, "t_post_inst", 1.0, Threshold(0.0, "transferred", 0), sources=("en", "de"), thresholds=known)
    source = SourceRows(np.empty((0, 1)), np.empty(0))
    return Gate(np.eye(HIDDEN)[0], np.eye(HIDDEN)[:, :1], readout, source, meta, languages=languages)


def test_each_row_of_a_mixed_batch_gets_its_languages_threshold(rng, means, languages):
    learned = languages.with_language("sw", cloud(rng, means["sw"], n=8))
    gate = a_gate(learned, sw=-100.0)
    batch = np.stack([cloud(rng, means["en"], 1)[0], cloud(rng, means["sw"], 1)[0], cloud(rng, means["ko"], 1)[0] + 30])
    told = decide(gate, batch, [None, None, None])
    assert [d.language for d in told] == ["en", "sw", None]
    assert [d.threshold for d in told] == [0.0, -100.0, 0.0]
    assert told[0].note is None
    assert told[1].flagged
    assert "no known language is near" in told[2].note
    given = decide(gate, batch, ["sw", "sw", "xx"])
    assert [d.threshold for d in given] == [-100.0, -100.0, 0.0]
    assert "xx is not calibrated" in given[2].note
    assert [d.language for d in decide(gate, batch[::-1], [None] * 3)] == [None, "sw", "en"]


def test_a_gate_that_knows_no_languages_says_so(rng, means):
    (decision,) = decide(a_gate(None), cloud(rng, means["en"], 1), [None])
    assert decision.language is None
    assert "the gate knows none" in decision.note


def test_the_map_survives_the_disk(rng, means, languages, tmp_path):
    gate = a_gate(languages.with_language("sw", cloud(rng, means["sw"], n=8)), sw=1.0)
    gate.save(tmp_path / "g.safetensors")
    loaded = Gate.load(tmp_path / "g.safetensors")
    rows = np.concatenate([cloud(rng, means[code]) for code in ("en", "sw")])
    assert loaded.languages.identify(rows) == gate.languages.identify(rows)
    replace(gate, languages=None).save(tmp_path / "bare.safetensors")
    assert Gate.load(tmp_path / "bare.safetensors").languages is None
