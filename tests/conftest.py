"""Fixtures: the command line, the data beside the checkout, tiny models with random weights."""

import json
import os
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
