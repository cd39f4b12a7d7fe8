"""The command line's manners: help, configuration, output streams, exit codes, errors with a fix."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from recalib.activations import ActivationSet
from recalib.cli.app import app
from recalib.gate.gate import Gate

COMMANDS = [command.name for command in app.registered_commands]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A tiny model, prompts, activations and a gate of it, made once through the command line."""
    from typer.testing import CliRunner

    folder = tmp_path_factory.mktemp("workplace")
    tiny.save("llama", folder / "model")
    tiny.save("phi3", folder / "other")
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": " ".join(f"w{i}" for i in rng.integers(*span, 4)), "language": language, "label": label}
        for language in ("en", "de", "sw")
        for label, span in (("harmful", (0, 40)), ("harmless", (50, 90)))
        for _ in range(6)
    ]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for command in (
        f"extract --model {folder}/model --data {folder}/p.jsonl --splits train --out {folder}/a",
        f"fit-gate --activations {folder}/a --sources en,de --out {folder}/g.safetensors",
    ):
        result = CliRunner().invoke(app, command.split())
        assert result.exit_code == 0, result.output
    return folder


def test_help_needs_neither_torch_nor_transformers():
    code = (
        "import sys; from typer.testing import CliRunner; from recalib.cli.app import app\n"
        f"for command in {COMMANDS!r}:\n"
        "    assert CliRunner().invoke(app, [command, '--help']).exit_code == 0, command\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'datasets', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options(recalib, command):
    text = recalib(command, "--help").out
    for option in ("--json", "--quiet", "--config", "--seed", "--device", "--dtype", "--revision"):
        assert option in text
    takes_model = "--model" in text or command == "doctor"
    assert ("--trust-remote-code" in text) == takes_model


def test_version(recalib):
    assert recalib("--version").out.startswith("recalib ")


def test_json_is_alone_on_stdout_and_quiet_silences_the_rest(recalib, workplace, tmp_path):
    command = [
        "calibrate",
        "--lang",
        "sw",
        "--shots",
        2,
        "--gate",
        workplace / "g.safetensors",
        "--data",
        workplace / "p.jsonl",
        "--out",
        tmp_path / "g.safetensors",
        "--json",
    ]
    loud = recalib(*command)
    assert set(loud.json) == {"gate", "languages"}
    assert loud.err
    quiet = recalib(*command, "--quiet")
    assert quiet.json == loud.json
    assert quiet.err == ""


def test_a_config_file_sets_defaults_and_the_command_line_wins(recalib, workplace, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(
        f'seed = 3\nbatch-tokens = 64\n[calibrate]\nlang = "sw"\nshots = 2\ngate = "{workplace}/g.safetensors"\n'
        f'activations = "{workplace}/a"\nout = "{tmp_path}/g.safetensors"\n'
    )
    ran = recalib("calibrate", "--config", config, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["languages"]["sw"]["shots"] == 2
    assert Gate.load(tmp_path / "g.safetensors").meta.thresholds["sw"].seed == 3
    assert recalib("calibrate", "--config", config, "--shots", 3, "--json").json["languages"]["sw"]["shots"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shoots = 3", "'shoots'"),
        ("[calibrate]\nlayer = 3", "'layer'"),
        ("seed = ", "not TOML"),
        (None, "No such file"),
    ],
)
def test_config_files_with_mistakes_are_refused(recalib, tmp_path, text, message):
    config = tmp_path / "c.toml"
    if text is not None:
        config.write_text(text)
    ran = recalib("calibrate", "--config", config, "--lang", "sw")
    assert ran.code == 2
    assert message in ran.err.replace("\n", " ")


def bad_inputs():
    """(name, arguments with {w} for the workplace and {t} for a temporary folder, exit code, message, fix)"""
    gate = "--gate {w}/g.safetensors"
    return [
        ("no gate", "calibrate --lang sw --gate {t}/none", 1, "no such gate", "fit-gate"),
        ("no prompt file", f"calibrate --lang sw {gate} --data {{t}}/none.jsonl", 1, "no such prompt source", "--data"),
        ("empty prompt file", f"steer {gate} --prompts {{t}}/empty.txt", 1, "there are no prompts", "--prompts"),
        ("missing steer file", f"steer {gate} --prompts {{t}}/none.txt", 1, "No such file", "path"),
        ("empty prompt", f"steer {gate} --prompts {{t}}/blank.jsonl", 1, "blank.jsonl:2", ""),
        ("unknown language", f"calibrate --lang xx {gate} --data {{w}}/p.jsonl", 2, "'xx' is not in", "tier"),
        ("unknown split", f"calibrate --lang sw {gate} --data {{w}}/p.jsonl --split dev", 2, "'dev' is not in", ""),
        ("malformed row", f"calibrate --lang sw {gate} --data {{t}}/bad.jsonl", 1, "bad.jsonl:2", ""),
        (
            "too few rows",
            f"calibrate --lang sw --shots 9 {gate} --data {{w}}/p.jsonl",
            1,
            "9 harmful shots",
            "--shots 6",
        ),
        ("unknown method", f"calibrate --lang sw {gate} --method magic", 2, "'magic'", ""),
        (
            "another model",
            f"calibrate --lang sw {gate} --data {{w}}/p.jsonl --model {{w}}/other",
            1,
            "architecture",
            "--model",
        ),
        ("steer another model", f"steer {gate} --model {{w}}/other w1", 1, "architecture", "--model"),
        (
            "no model",
            "extract --model {t}/none --data {w}/p.jsonl --splits train --out {t}/o",
            1,
            "cannot load",
            "--model",
        ),
        (
            "layer too high",
            "extract --model {w}/model --data {w}/p.jsonl --splits train --layers 9 --out {t}/o",
            2,
            "4 blocks",
            "",
        ),
        ("bad position", "extract --data {w}/p.jsonl --positions last --out {t}/o", 2, "'last'", ""),
        ("bad device", "extract --data {w}/p.jsonl --splits train --device quantum --out {t}/o", 2, "quantum", ""),
        ("bad dtype", "extract --data {w}/p.jsonl --splits train --dtype int3 --out {t}/o", 2, "int3", ""),
        ("no activations", "fit-gate --activations {t}/none --out {t}/g", 1, "holds no activations", "recalib extract"),
        (
            "layer not extracted",
            "fit-gate --activations {w}/a --sources en,de --layer 7 --out {t}/g",
            1,
            "no layer 7",
            "--layers 7",
        ),
        ("no source", "fit-gate --activations {w}/a --sources fr --out {t}/g", 2, "'fr'", ""),
        ("truncated gate", "inspect {t}/cut.safetensors", 1, "truncated", ""),
        ("foreign file", "inspect {t}/foreign.safetensors", 1, "not an artifact", ""),
        ("newer schema", "steer --gate {t}/newer.safetensors w1", 1, "recalib.gate/2", "upgrade"),
        (
            "NaN",
            "fit-gate --activations {t}/nan --sources en --layer 0 --out {t}/g",
            1,
            "NaN or infinity",
            "extract again",
        ),
        ("inverted", f"calibrate --lang sw {gate} --data {{t}}/inverted.jsonl --out {{t}}/g", 1, "inverted", "labels"),
        ("unwritable", f"calibrate --lang sw {gate} --data {{w}}/p.jsonl --out {{t}}/file/g", 1, "file", "path"),
        ("unknown judge", f"eval {gate} --judge nobody", 2, "'nobody'", ""),
        ("unknown eval method", f"eval {gate} --methods base,magic", 2, "'magic'", ""),
        ("malformed bar", f"eval {gate} --fail-under good", 2, "'good'", "selectivity>=0.5"),
        ("both sources", f"eval {gate} --data {{w}}/p.jsonl --activations {{w}}/a", 2, "exclude", ""),
        ("malformed columns", f"calibrate --lang sw {gate} --columns text=prompt", 2, "text=prompt", "FIELD"),
    ]


@pytest.mark.parametrize(("line", "code", "message", "fix"), [pytest.param(*c[1:], id=c[0]) for c in bad_inputs()])
def test_bad_input_is_one_line_with_a_fix_and_damages_nothing(
    recalib, workplace, tmp_path, monkeypatch, line, code, message, fix
):
    monkeypatch.chdir(tmp_path)
    gate = (workplace / "g.safetensors").read_bytes()
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "blank.jsonl").write_text('{"prompt": "w1"}\n{"prompt": " "}\n')
    (tmp_path / "bad.jsonl").write_text('{"prompt": "w1", "language": "sw", "label": "harmful"}\n{oops}\n')
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "cut.safetensors").write_bytes(gate[: len(gate) // 2])
    save_file({"x": np.zeros(2)}, tmp_path / "foreign.safetensors")
    newer = json.dumps({"schema": "recalib.gate/2"})
    save_file(load_file(workplace / "g.safetensors"), tmp_path / "newer.safetensors", metadata={"recalib": newer})
    swapped = (workplace / "p.jsonl").read_text().replace("harmful", "x").replace("harmless", "harmful")
    (tmp_path / "inverted.jsonl").write_text(swapped.replace('"x"', '"harmless"'))
    for label in ("harmful", "harmless"):
        (tmp_path / "nan" / "en" / "train").mkdir(parents=True, exist_ok=True)
        values = np.full((3, 1, 1, 8), np.nan, np.float32)
        document = {"schema": "recalib.activations/1", "layers": [0], "positions": ["t_post_inst"]}
        path = ActivationSet(tmp_path / "nan").path("en", "train", label)
        save_file({"activations": values}, path, metadata={"recalib": json.dumps(document)})
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    ran = recalib(*line.format(w=workplace, t=tmp_path).split())

    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    assert message in ran.err
    assert fix in ran.err
    assert ran.out == ""
    assert (workplace / "g.safetensors").read_bytes() == gate
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"} == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission(recalib, workplace, tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    ran = recalib("fit-gate", "--activations", workplace / "a", "--sources", "en", "--out", tmp_path / "x" / "g")
    assert ran.code == 1
    assert "ermission" in ran.err
