"""The wheel works without the checkout."""

import os
import subprocess
import sys
import zipfile

import pytest
from conftest import REPO


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPO)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_carries_model_prompts_and_gate(unpacked):
    names = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert "recalib/organism/weights/model.safetensors" in names
    assert "recalib/organism/gate.safetensors" in names
    assert len([n for n in names if n.startswith("recalib/starter/") and n.endswith(".jsonl")]) == 23
    assert len([n for n in names if n.startswith("recalib/organism/lexicon/")]) == 16
    assert not [n for n in names if n.startswith(("tests", "examples"))]


def test_calibrate_from_the_wheel_in_an_empty_folder(unpacked, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "RECALIB_GATE"}
    done = subprocess.run(
        [sys.executable, "-m", "recalib", "calibrate", "--lang", "sw", "--shots", "4"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(unpacked), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "sw Swahili" in done.stdout
    assert (tmp_path / "artifacts" / "gate.safetensors").is_file()
