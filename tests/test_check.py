"""calibrate with and without labels, guarantees and `check`, through the command line."""

import copy
import json

import numpy as np
import pytest
import torch

from recalib.gate.gate import Gate
from recalib.languages import LOW
from recalib.prompts import load


@pytest.fixture
def gate(recalib, organism_activations, tmp_path):
    path = tmp_path / "gate.safetensors"
    assert recalib("fit-gate", "--activations", organism_activations, "--out", path, "-q").code == 0
    return path


@pytest.fixture
def traffic(tmp_path):
    """Unlabelled Yoruba prompts, one in five harmful."""
    prompts = load("organism")
    texts = prompts.texts("yo", "train", "harmful")[:16] + prompts.texts("yo", "train", "harmless")[:64]
    file = tmp_path / "traffic.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": text}) for text in texts))
    return file


@pytest.mark.parametrize(("shots", "method"), [((), "mixture"), (("--shots", 4), "joint")])
def test_unlabelled_prompts_calibrate_alone_and_with_shots(recalib, gate, traffic, organism_activations, shots, method):
    ran = recalib("calibrate", "--lang", "yo", "--gate", gate, *shots, "--unlabeled", traffic, "--json")
    assert ran.code == 0, ran.err
    cell = ran.json["languages"]["yo"]
    assert (cell["method"], cell["unlabeled"], cell["shots"]) == (method, 80, 4 if shots else 0)
    assert cell["interval"][0] < cell["threshold"] < cell["interval"][1]
    measured = recalib("eval", "--gate", gate, "--langs", "yo", "--activations", organism_activations, "--json").json
    assert measured["gate_metrics"]["yo"]["balanced_accuracy"] >= 0.8


def test_unlabelled_activations_calibrate_too(recalib, gate, organism_activations):
    command = ["calibrate", "--lang", "yo", "--gate", gate, "--unlabeled", organism_activations, "--json"]
    ran = recalib(*command)
    assert ran.code == 0, ran.err
    assert ran.json["languages"]["yo"]["unlabeled"] == 4 * 96


def test_unlabelled_prompts_can_be_extracted_first(recalib, gate, tmp_path):
    prompts = load("organism")
    texts = prompts.texts("sw", "train", "harmful")[:20] + prompts.texts("sw", "train", "harmless")[:40]
    rows = [{"prompt": text, "language": "sw", "label": "unlabeled"} for text in texts]
    file, out = tmp_path / "t.jsonl", tmp_path / "a"
    file.write_text("\n".join(map(json.dumps, rows)))
    command = ["extract", "--data", file, "--langs", "sw", "--splits", "train", "--out", out]
    assert recalib(*command).code == 0
    ran = recalib("calibrate", "--lang", "sw", "--gate", gate, "--unlabeled", out, "--json")
    assert ran.json["languages"]["sw"]["unlabeled"] == 60


def test_traffic_without_two_classes_is_refused(recalib, gate, tmp_path):
    text = load("organism").texts("yo", "train", "harmless")[0]
    file = tmp_path / "t.txt"
    file.write_text("\n".join([text] * 40))
    before = gate.read_bytes()
    ran = recalib("calibrate", "--lang", "yo", "--gate", gate, "--unlabeled", file)
    assert ran.code == 3
    assert "show no two classes" in ran.err
    assert gate.read_bytes() == before


def test_a_promise_is_kept_or_refused_with_the_number_it_takes(recalib, gate, organism_activations):
    command = ["calibrate", "--lang", "sw", "--gate", gate, "--activations", organism_activations]
    ran = recalib(*command, "--shots", 4, "--max-false-flag", 0.05)
    assert ran.code == 3
    assert "at least 45" in ran.err
    assert "--shots 45" in ran.err
    ran = recalib(*command, "--shots", 60, "--max-false-flag", 0.05, "--max-miss", 0.05, "--json")
    assert ran.code == 0, ran.err
    cell = ran.json["languages"]["sw"]
    assert cell["guarantee"] == {"confidence": 0.9, "max_false_flag": 0.05, "max_miss": 0.05}
    false_flags = [score >= cell["threshold"] for score in cell["harmless_scores"]]
    assert np.mean(false_flags) <= 0.05
    assert recalib(*command, "--method", "f1", "--shots", 60, "--max-miss", 0.1).code == 2
    assert "fraction between" in recalib(*command, "--max-miss", 5).err


def test_deferred_prompts_are_steered_passed_or_refused(recalib, gate, organism_activations, tmp_path):
    """Between the thresholds of two promises; which prompts those are does not depend on what is done."""
    promise = ["--shots", 90, "--max-false-flag", 0.03, "--max-miss", 0.03]
    command = ["calibrate", "--lang", "km", "--gate", gate, "--activations", organism_activations]
    assert recalib(*command, *promise).code == 0
    threshold = Gate.load(gate).meta.thresholds["km"]
    assert threshold.defer_from < threshold.value
    texts = load("organism").texts("km", "test", "harmful") + load("organism").texts("km", "test", "harmless")
    file = tmp_path / "p.txt"
    file.write_text("\n".join(texts))
    steer = ["steer", "--gate", gate, "--lang", "km", "--prompts", file, "--max-new-tokens", 6, "--batch-size", 96]
    rows = {what: recalib(*steer, "--on-defer", what, "--json", "-q").json for what in ("steer", "pass", "refuse")}
    deferred = [i for i, row in enumerate(rows["steer"]) if row["deferred"]]
    assert deferred
    assert all(threshold.defer_from <= rows["steer"][i]["score"] < threshold.value for i in deferred)
    assert {rows["refuse"][i]["completion"] for i in deferred} == {"I cannot help with that."}
    assert [rows["steer"][i]["completion"] for i in deferred] != [rows["pass"][i]["completion"] for i in deferred]
    decided = [i for i in range(len(texts)) if i not in deferred]
    assert [rows["steer"][i]["completion"] for i in decided] == [rows["pass"][i]["completion"] for i in decided]


def test_languages_are_told_from_the_activation(recalib, gate, organism_activations):
    recalib("calibrate", "--lang", "low", "--gate", gate, "--activations", organism_activations)
    langs = ("--langs", "all", "--activations", organism_activations)
    told = recalib("eval", "--gate", gate, *langs, "--json").json["identification"]
    assert len(told) == 16
    assert np.mean([cell["accuracy"] for cell in told.values()]) >= 0.98
    low = [told[code] for code in LOW]
    given, auto = (np.mean([cell[key] for cell in low]) for key in ("balanced_accuracy_given", "balanced_accuracy"))
    assert auto >= given - 0.005
    prompts = load("organism")
    texts = [prompts.texts(code, "test", "harmful")[0] for code in ("yo", "en", "km")]
    rows = recalib("steer", "--gate", gate, "--max-new-tokens", 2, "--json", "-q", *texts).json
    assert [row["language"] for row in rows] == ["yo", "en", "km"]


def test_an_unchanged_model_holds_and_a_changed_one_drifts(recalib, gate, organism, organism_activations, tmp_path):
    assert recalib("calibrate", "--lang", "sw,yo", "--gate", gate).code == 0
    out = tmp_path / "accepted.safetensors"
    ran = recalib("check", "--gate", gate, "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["drifted"] == []
    for cell in ran.json["languages"].values():
        assert cell["shift"] == pytest.approx(0, abs=1e-3)
        assert cell["auc"] == cell["auc_then"]
    assert set(Gate.load(out).meta.thresholds) == {"sw", "yo"}
    assert recalib("check", "--gate", gate, "--activations", organism_activations).code == 0

    changed = copy.deepcopy(organism.model)
    with torch.no_grad():
        for parameter in changed.model.layers[3:].parameters():
            parameter.zero_()
    changed.save_pretrained(tmp_path / "changed")
    organism.tokenizer.save_pretrained(tmp_path / "changed")
    ran = recalib("check", "--gate", gate, "--model", tmp_path / "changed", "--data", "organism")
    assert ran.code == 3
    assert "differs in weights" in ran.out
    assert "fit-gate" in ran.err


def test_check_explains_what_it_lacks(recalib, gate, tmp_path):
    assert "nothing to check" in recalib("check", "--gate", gate).err
    recalib("calibrate", "--lang", "sw", "--gate", gate)
    ran = recalib("check", "--gate", gate, "--data", "starter")
    assert ran.code == 1
    assert "8 of the shots are not in this source" in ran.err
    assert "--data organism" in ran.err


def test_what_fit_gate_is_told_it_does(recalib, organism_activations, tmp_path):
    command = ["fit-gate", "--activations", organism_activations, "--layer", 5, "--json", "-q", "--out", tmp_path / "g"]
    told = recalib(*command, "--rank", 3, "--readout", "subspace").json
    assert (told["layer"], told["readout"], told["rank"]) == (5, "subspace", 3)
    assert recalib(*command, "--readout", "ridge").json["rank"] == 1
    both = recalib(*command, "--rank", 3).json["candidates"]
    assert {(c["readout"], c["rank"]) for c in both} == {("subspace", 3), ("ridge", 1)}
    document = recalib("inspect", tmp_path / "g", "--json").json
    assert [c["layer"] for c in document["candidates"]] == [5, 5]
    for extra in (["--rank", "many"], ["--readout", "magic"], ["--rank", 2, "--readout", "ridge"]):
        assert recalib(*command, *extra).code == 2
