"""The study of shots, and that the default rule does what the documentation says of it, on both data sets."""

import json
from statistics import mean

import pytest

METHODS = "f1,midpoint,shrunk,mixture,joint"


@pytest.fixture(scope="module", params=["organism", "golden"])
def studied(request, tmp_path_factory):
    """The study's JSON on a gate chosen by default."""
    from typer.testing import CliRunner

    from recalib.cli.app import app

    activations = request.getfixturevalue("golden" if request.param == "golden" else "organism_activations")
    gate, out = (tmp_path_factory.mktemp("study") / name for name in ("g.safetensors", "report"))
    fit = ["fit-gate", "--activations", str(activations), "--out", str(gate), "-q"]
    study = ["eval", "--gate", str(gate), "--activations", str(activations), "--langs", "low", "--study", "shots"]
    runner = CliRunner()
    assert runner.invoke(app, fit).exit_code == 0
    result = runner.invoke(app, [*study, "--shots", "0,1,2,4", "--draws", "100", "--out", str(out), "--json", "-q"])
    assert result.exit_code == 0, result.output
    assert (out / "shots.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "results.json").read_text()) == json.loads(result.stdout)
    return json.loads(result.stdout)["study"]


def macro(rows, method, shots, statistic="mean"):
    return mean(r["balanced_accuracy"][statistic] for r in rows if (r["method"], r["shots"]) == (method, shots))


def test_every_cell_is_there_with_its_numbers(studied):
    languages = {row["language"] for row in studied}
    labelled = {(m, n) for m in ("f1", "midpoint", "shrunk", "joint") for n in (1, 2, 4)}
    assert {(r["method"], r["shots"]) for r in studied} == labelled | {("transferred", 0), ("mixture", 0)}
    assert len(studied) == len(languages) * (len(labelled) + 2)
    for row in studied:
        for rate in ("balanced_accuracy", "f1"):
            assert 0 <= row[rate]["min"] <= row[rate]["p10"] <= 1
            assert row[rate]["min"] <= row[rate]["mean"] <= 1
        assert row["draws"] == (1 if row["method"] == "transferred" else 100)
        if row["method"] in ("midpoint", "shrunk"):  # they leave the readout alone
            assert row["balanced_accuracy"]["mean"] <= row["best_threshold_balanced_accuracy"] + 1e-9


def test_the_default_rule_is_no_worse_than_the_papers_and_less_of_a_lottery(studied):
    for shots in (1, 2, 4):
        assert macro(studied, "shrunk", shots) >= macro(studied, "f1", shots)
        assert macro(studied, "shrunk", shots, "p10") >= macro(studied, "f1", shots, "p10")
    best = mean({r["language"]: r["best_threshold_balanced_accuracy"] for r in studied}.values())
    assert macro(studied, "shrunk", 4) >= best - 0.035


def test_unlabelled_rows_help_four_shots(studied):
    assert macro(studied, "joint", 4) >= macro(studied, "shrunk", 4) - 0.002


def test_unlabelled_rows_do_what_two_shots_do(studied, request):
    if "organism" in request.node.callspec.id:
        # .86 against .88: its harmful scores are no normal distribution, and a fifth of 64 rows does not show it
        request.applymarker(pytest.mark.xfail(reason="does not hold on the embedded model", strict=True))
    assert macro(studied, "mixture", 0) >= macro(studied, "f1", 2) - 0.005


def test_against_the_published_method_on_its_own_gate(recalib, golden, tmp_path):
    """The default rule on the paper's gate (subspace of rank 10, all sources), same draws."""
    gate = tmp_path / "g.safetensors"
    paper = ["--readout", "subspace", "--rank", 10, "--keep-all-sources"]
    assert recalib("fit-gate", "--activations", golden, "--out", gate, *paper, "-q").code == 0
    study = ["eval", "--gate", gate, "--activations", golden, "--langs", "low", "--study", "shots", "--json", "-q"]
    rows = recalib(*study, "--shots", "1,2,4", "--methods", "f1,shrunk", "--draws", 100).json["study"]
    for shots, gain, tail in ((1, 0.0, 0.0), (2, 0.012, 0.03), (4, 0.012, 0.02)):
        assert macro(rows, "shrunk", shots) >= macro(rows, "f1", shots) + gain
        assert macro(rows, "shrunk", shots, "p10") >= macro(rows, "f1", shots, "p10") + tail


def test_mistakes_are_explained(recalib, golden, tmp_path):
    gate = tmp_path / "g.safetensors"
    recalib("fit-gate", "--activations", golden, "--out", gate, "-q")
    study = ["eval", "--gate", gate, "--activations", golden, "--langs", "low", "--study", "shots"]
    for extra, code, message in (
        (["--methods", "magic"], 2, "'magic' is not one of f1"),
        (["--shots", "one"], 2, "not a list of numbers"),
        (["--shots", "90"], 1, "but there are 96"),
    ):
        ran = recalib(*study, *extra, "--draws", 2)
        assert ran.code == code
        assert message in ran.err
    assert "works on --activations" in recalib("eval", "--study", "shots").err
