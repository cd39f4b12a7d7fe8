"""Sharded extraction: the joined set is the one process's, and nothing incomplete or mixed is ever read."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from recalib.activations import ActivationSet
from recalib.errors import ArtifactError, UsageError
from recalib.shards import WHOLE, Shard, launched_shard, parse_shard

COMMAND = ["--langs", "sw,en", "--splits", "test", "--limit", 7, "--layers", "1,3", "--positions", "t_post_inst,mean"]
CELLS = [(language, "test", label) for language in ("en", "sw") for label in ("harmful", "harmless")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder that one process writes."""
    from typer.testing import CliRunner

    from recalib.cli.app import app

    out = tmp_path_factory.mktemp("whole") / "a"
    ran = CliRunner().invoke(app, ["extract", *map(str, COMMAND), "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    return out


def assert_same_rows(left, right, cells=CELLS, layers=(1, 3), positions=("t_post_inst", "mean")):
    """Rows and ids are equal, in order; returns the largest difference."""
    left, right = ActivationSet(left), ActivationSet(right)
    assert left.cells == right.cells == tuple(cells)
    largest = 0.0
    for cell in cells:
        for layer in layers:
            for position in positions:
                a, b = left.load(*cell, layer, position), right.load(*cell, layer, position)
                assert list(a.prompt_ids) == list(b.prompt_ids)
                np.testing.assert_allclose(a.rows, b.rows, rtol=1e-4, atol=1e-5)
                largest = max(largest, float(np.abs(a.rows - b.rows).max()))
    return largest


@pytest.mark.parametrize("count", [2, 3, 9])  # 9: more shards than prompts
def test_shards_join_to_one_processs_rows_in_its_order(recalib, whole, tmp_path, count):
    for k in reversed(range(count)):
        ran = recalib("extract", *COMMAND, "--shard", f"{k}/{count}", "--out", tmp_path, "--json")
        assert ran.code == 0, ran.err
        assert ran.json["shard"] == f"{k}/{count}"
        assert ran.json["prompts"] == 4 * len(range(k, 7, count))
    assert_same_rows(tmp_path, whole)
    meta = ActivationSet(tmp_path).cell_meta(*CELLS[0])
    assert (meta.count, meta.shard) == (7, WHOLE)
    assert meta.prompts_hash == ActivationSet(whole).cell_meta(*CELLS[0]).prompts_hash
    assert len(ActivationSet(tmp_path).sources(CELLS)) == 4 * count
    assert recalib("extract", *COMMAND, "--shard", f"0/{count}", "--out", tmp_path, "--json").json["skipped"] == 4


def test_two_processes_of_torchrun(whole, tmp_path):
    """Rank and world size from the environment; only rank 0 reports."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command = [*launcher, "--standalone", "-m", "recalib", "extract", *COMMAND, "--out", tmp_path, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count('"shard"') == 1
    assert ran.stderr.count("when all 2 shards are there: recalib fit-gate") == 1
    assert {path.name.partition(".")[2] for path in tmp_path.rglob("*.safetensors")} == {
        "shard-0-of-2.safetensors",
        "shard-1-of-2.safetensors",
    }
    print(f"largest difference to one process: {assert_same_rows(tmp_path, whole):.2g}")


def test_an_incomplete_set_is_refused_and_named(recalib, tmp_path):
    for k in (0, 2):
        assert recalib("extract", *COMMAND, "--shard", f"{k}/4", "--out", tmp_path).code == 0
    with pytest.raises(ArtifactError, match="harmful is incomplete, shards 1/4, 3/4 are missing") as caught:
        ActivationSet(tmp_path).load(*CELLS[0], 1, "mean")
    assert "--shard 1/4" in caught.value.fix
    ran = recalib("fit-gate", "--activations", tmp_path, "--sources", "en", "--split", "test", "--out", tmp_path / "g")
    assert ran.code == 1
    assert "shards 1/4, 3/4 are missing" in ran.err
    assert not (tmp_path / "g").exists()


def test_shards_and_whole_files_do_not_mix(recalib, whole, tmp_path):
    assert recalib("extract", *COMMAND, "--shard", "0/2", "--out", tmp_path).code == 0
    for other in ("0/1", "0/3"):
        ran = recalib("extract", *COMMAND, "--shard", other, "--out", tmp_path)
        assert ran.code == 1
        assert "is already there, divided by 2 and not by" in ran.err
        assert "--shard K/2" in ran.err
    folder = ActivationSet(tmp_path)
    folder.path(*CELLS[0]).write_bytes(ActivationSet(whole).path(*CELLS[0]).read_bytes())
    with pytest.raises(ArtifactError, match="more than once, as one file, shards of 2") as caught:
        folder.load(*CELLS[0], 1, "mean")
    assert "delete all but one set" in caught.value.fix


def test_a_renamed_or_foreign_shard_is_refused(recalib, tmp_path):
    for k in range(2):
        assert recalib("extract", *COMMAND, "--shard", f"{k}/2", "--out", tmp_path).code == 0
    first, second = ActivationSet(tmp_path).files(*CELLS[0])
    kept = second.read_bytes()
    second.write_bytes(first.read_bytes())
    with pytest.raises(ArtifactError, match="is shard 0/2 by its metadata"):
        ActivationSet(tmp_path).load(*CELLS[0], 1, "mean")
    second.write_bytes(kept)
    second.unlink()
    other = [*COMMAND[:5], 6, *COMMAND[6:], "--shard", "1/2", "--out", tmp_path / "other"]
    assert recalib("extract", *other).code == 0
    second.write_bytes(ActivationSet(tmp_path / "other").path(*CELLS[0], Shard(1, 2)).read_bytes())
    with pytest.raises(ArtifactError, match="has other prompts hash"):
        ActivationSet(tmp_path).load(*CELLS[0], 1, "mean")


def test_which_shard():
    assert parse_shard("3/8") == Shard(3, 8)
    assert list(Shard(1, 3).take(range(8))) == [1, 4, 7]
    assert [Shard(k, 3).size(8) for k in range(3)] == [3, 3, 2]
    for spec in ("8", "-1/2", "a/b", "1/", "2/2", "0/0"):
        with pytest.raises(UsageError):
            parse_shard(spec)
    with pytest.raises(UsageError) as caught:
        parse_shard("8/8")
    assert "0/8 to 7/8" in caught.value.fix
    assert launched_shard({"RANK": "1", "WORLD_SIZE": "4"}) == Shard(1, 4)
    assert launched_shard({}) == WHOLE


def test_an_explicit_shard_overrules_the_environment(recalib, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = recalib("extract", *COMMAND, "--shard", "0/3", "--out", tmp_path, "--dry-run", "--json")
    assert (ran.json["shard"], ran.json["prompts"]) == ("0/3", 12)
    assert recalib("extract", *COMMAND, "--out", tmp_path, "--dry-run", "--json").out == ""


def test_two_workers_of_a_local_ray(whole, tmp_path):
    pytest.importorskip("ray", reason="the extra recalib[ray] is not installed")
    command = [sys.executable, "-m", "recalib", "extract", *COMMAND, "--engine", "ray:2", "--out", tmp_path, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for skipped in (0, 8):
        ran = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["skipped"] == skipped
    assert len(list(tmp_path.rglob("*.shard-?-of-2.safetensors"))) == 8
    assert_same_rows(tmp_path, whole)


def test_ray_and_shard_exclude_each_other(recalib, tmp_path):
    ran = recalib("extract", *COMMAND, "--engine", "ray:2", "--shard", "0/2", "--out", tmp_path)
    assert (ran.code, "exclude each other" in ran.err) == (2, True)
    for engine in ("dask", "ray:", "ray:0", "ray:x"):
        assert recalib("extract", *COMMAND, "--engine", engine, "--out", tmp_path).code == 2
