"""eval: cells are kept as they are finished, resumed after a kill, and generated in shards."""

import json
import os
import shutil

import pytest

EVAL = ("eval", "--langs", "sw,yo", "--limit", 7, "--max-new-tokens", 6, "--json")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What an evaluation in one go leaves behind."""
    from typer.testing import CliRunner

    from recalib.cli.app import app

    folder = tmp_path_factory.mktemp("whole")
    ran = CliRunner().invoke(app, [*map(str, EVAL), "--out", str(folder)])
    assert ran.exit_code == 0, ran.output
    return folder


def results(folder):
    return json.loads((folder / "results.json").read_text())


def files(folder):
    return {path.relative_to(folder): path for path in sorted((folder / "cells").rglob("*.jsonl"))}


def test_finished_cells_are_kept_and_the_others_made(recalib, out, tmp_path):
    again = shutil.copytree(out, tmp_path / "again")
    lost, cut, garbled, *kept = files(again).values()
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-40])
    garbled.write_text("not what was written\n")
    for path in kept:
        os.utime(path, (1, 1))
    assert recalib(*EVAL, "--out", again).code == 0
    assert results(again) == results(out)
    assert {path.read_bytes() for path in files(again).values()} == {path.read_bytes() for path in files(out).values()}
    assert {path.stat().st_mtime for path in kept} == {1}
    assert lost.stat().st_mtime != 1


@pytest.mark.parametrize("change", [("--max-new-tokens", 5), ("--dtype", "bfloat16"), ("--limit", 6)])
def test_answers_of_other_settings_are_not_taken_for_these(recalib, out, tmp_path, change):
    again = shutil.copytree(out, tmp_path / "again")
    for path in files(again).values():
        os.utime(path, (1, 1))
    assert recalib(*EVAL, *change, "--out", again).code == 0
    assert 1 not in {path.stat().st_mtime for path in files(again).values()}


def test_shards_together_give_what_one_process_gives(recalib, out, tmp_path, monkeypatch):
    both = tmp_path / "both"
    ran = recalib(*EVAL, "--out", both, "--shard", "0/2")
    assert ran.code == 0, ran.err
    assert ran.json == {"shard": "0/2", "cells": 8, "prompts": 8 * 4, "skipped": 0}
    assert not (both / "results.json").exists()
    monkeypatch.setenv("RANK", "1")  # as torchrun and accelerate tell a process its part
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert recalib(*EVAL, "--out", both).json == {"shard": "1/2", "cells": 8, "prompts": 8 * 3, "skipped": 0}
    assert recalib(*EVAL, "--out", both).json["skipped"] == 8
    monkeypatch.delenv("WORLD_SIZE")
    assert recalib(*EVAL, "--out", both).code == 0
    assert len(files(both)) == 2 * 8  # nothing was generated again
    ours, theirs = (folder / "completions.jsonl" for folder in (both, out))
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in (ours, theirs)]
    for mine, other in zip(*rows, strict=True):
        assert mine.pop("score") == pytest.approx(other.pop("score"), abs=1e-4)
        assert mine == other


def test_a_shard_must_be_kept(recalib):
    ran = recalib(*EVAL, "--shard", "0/2")
    assert ran.code == 2
    assert "--out" in ran.err
