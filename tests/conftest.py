"""Fixtures: the command line, the data beside the checkout, tiny models with random weights."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

REPO = Path(__file__).parent.parent
torch.set_num_threads(int(os.environ.get("RECALIB_TEST_THREADS", "2")))


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def recalib(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run a recalib command line; an exception that is not an exit fails the test."""
    monkeypatch.delenv("RECALIB_GATE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    from recalib.cli.app import app

    def run(*arguments: object, stdin: str | None = None) -> Ran:
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data that lies beside the checkout; tests that need it are skipped without it."""
    folder = Path(os.environ.get("RECALIB_SHARED", REPO.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"the shared data is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def organism() -> Any:
    """The embedded model, loaded once."""
    from recalib import lm

    return lm.load("organism", device="cpu")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def golden(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden gate's inputs as a folder of activations."""
    out = tmp_path_factory.mktemp("golden")
    script = REPO / "examples" / "bench" / "golden_activations.py"
    subprocess.run([sys.executable, str(script), str(shared / "golden" / "gate.safetensors"), str(out)], check=True)
    return out


@pytest.fixture(scope="session")
def organism_activations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Activations of the embedded model's train and test prompts, at all layers."""
    from recalib.cli.app import app

    out = tmp_path_factory.mktemp("organism") / "activations"
    command = ["extract", "--langs", "high,low", "--splits", "train,test", "--out", str(out), "--json", "-q"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return out
