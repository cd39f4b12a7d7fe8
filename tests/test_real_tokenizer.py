"""The pipeline on real prompts and a real tokenizer: PolyRefuse in 14 languages, a random Qwen2-type model."""

import json
import os
import subprocess
import sys

import pytest
from conftest import REPO


@pytest.fixture(scope="module")
def model(shared, tmp_path_factory):
    """What examples/random_qwen2.py builds: 6 blocks of width 256, the whole vocabulary."""
    out = tmp_path_factory.mktemp("real") / "model"
    tokenizer = shared / "data" / "qwen2.5-tokenizer"
    command = [sys.executable, REPO / "examples" / "random_qwen2.py", "--tokenizer", tokenizer, "--out", out]
    subprocess.run(list(map(str, command)), check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return out


def test_extract_fit_calibrate_steer_and_evaluate(recalib, shared, model, tmp_path):
    data, activations, gate = shared / "data" / "polyrefuse", tmp_path / "activations", tmp_path / "gate.safetensors"
    ran = recalib(
        *("extract", "--model", model, "--data", data, "--splits", "val", "--layers", "1,3", "--limit", 16),
        *("--positions", "t_post_inst,t_inst,mean", "--out", activations, "--json"),
    )
    assert ran.code == 0, ran.err
    assert (ran.json["cells"], ran.json["prompts"]) == (28, 14 * 2 * 16)

    ran = recalib("fit-gate", "--activations", activations, "--split", "val", "--out", gate, "--json")
    assert ran.code == 0, ran.err
    assert set(ran.json["sources"]) == {"en", "de", "fr", "es", "it", "nl", "pl", "ru", "zh", "ja"}
    assert ran.json["position"] == "t_post_inst"
    assert len(ran.json["candidates"]) == 2 * 5  # layers times forms

    command = ["calibrate", "--lang", "yo", "--shots", 4, "--data", data, "--split", "val", "--gate", gate, "--json"]
    ran = recalib(*command)
    assert ran.code == 0, ran.err
    assert ran.json["languages"]["yo"]["shots"] == 4

    ran = recalib("eval", "--gate", gate, "--langs", "yo,en", "--split", "val", "--activations", activations, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["gate_metrics"]["yo"]["n_harmful"] == 16
    assert ran.json["gate_metrics"]["yo"]["auc"] > 0.5

    rows = json.loads((data / "PolyRefuse" / "harmless_val_translated_yo.json").read_text())[:3]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": r["instruction"], "language": "yo"}) for r in rows))
    ran = recalib("steer", "--gate", gate, "--prompts", file, "--max-new-tokens", 4, "--json")
    assert ran.code == 0, ran.err
    assert [row["prompt"] for row in ran.json] == [row["instruction"] for row in rows]

    command = ["eval", "--gate", gate, "--langs", "yo", "--split", "val", "--data", data, "--limit", 3, "--json"]
    ran = recalib(*command, "--max-new-tokens", 32)  # random tokens: no basis for any verdict
    assert ran.code == 0, ran.err
    cell = ran.json["methods"]["recalib"]["languages"]["yo"]
    assert (cell["not_judged"], cell["harmful_refusal"], cell["selectivity"]) == (6, None, None)


def test_starter_prompts_calibrate_anybodys_model(recalib, model, tmp_path):
    """No data at hand: the package's own prompts fit and calibrate a gate."""
    activations, gate = tmp_path / "activations", tmp_path / "gate.safetensors"
    common = ["--model", model, "--data", "starter", "--layers", 2, "--splits", "train"]
    assert recalib("extract", *common, "--langs", "high", "--out", activations).code == 0
    assert recalib("fit-gate", "--activations", activations, "--out", gate).code == 0
    ran = recalib("calibrate", "--lang", "sw", "--shots", 4, "--gate", gate, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["languages"]["sw"]["shots"] == 4
