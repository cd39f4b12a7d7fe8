"""Extraction under kill -9, damaged files and a full disk: what is finished stays, the rest is done again."""

import contextlib
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny

SHARDS = 2
KILLS = 20


def extract_shard(shard, out):
    """What a worker does: the real command, in a process that has the imports behind it."""
    from recalib.cli.app import app

    os.environ["SOURCE_DATE_EPOCH"] = "0"
    command = ["--langs", "sw,yo", "--splits", "test", "--layers", "2", "--batch-tokens", "64", "--shard", shard]
    app(["extract", *command, "--device", "cpu", "--out", str(out), "--quiet", "--json"])


def contents(folder):
    """Every finished file's bytes, by its place in the folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def workers():
    """Starts the two shards' processes. They are forked from a server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["recalib.extraction", "recalib.prompts", "transformers.models.qwen2.modeling_qwen2"]
    )

    def start(out):
        processes = [context.Process(target=extract_shard, args=(f"{k}/{SHARDS}", out)) for k in range(SHARDS)]
        for process in processes:
            process.start()
        return processes

    return start


def test_twenty_kills_at_random_moments_lose_and_damage_nothing(workers, tmp_path):
    """Both shards are killed together; whatever is left then is whole, and the last run completes it."""
    for name in ("undisturbed", "timed"):  # the first one waits for the imports, too
        begun = time.monotonic()
        for process in workers(tmp_path / name):
            process.join()
            assert process.exitcode == 0
        duration = time.monotonic() - begun
    expected = contents(tmp_path / "undisturbed")
    assert contents(tmp_path / "timed") == expected
    assert len(expected) == 4 * SHARDS

    rng, killed, folders, left = np.random.default_rng(4), 0, [tmp_path / "0"], set()
    while killed < KILLS:
        processes = workers(folders[-1])
        time.sleep(rng.uniform(0, duration))
        for process in processes:
            if process.is_alive():
                process.kill()
        for process in processes:
            process.join()
        killed += any(process.exitcode == -signal.SIGKILL for process in processes)
        found = contents(folders[-1])
        left.add(len(found))
        assert found.items() <= expected.items()
        if found == expected:
            folders.append(tmp_path / str(len(folders)))
    for folder in folders:
        for process in workers(folder):
            process.join()
            assert process.exitcode == 0
        assert contents(folder) == expected
        assert not list(folder.rglob("*.tmp"))
    print(f"{killed} kills, {len(folders)} folders, after which {sorted(left)} of {len(expected)} files were there")
    assert len(left) > 2, "the kills came too early or too late to interrupt anything"


@pytest.fixture
def finished(recalib, tmp_path):
    """A finished sharded extraction, and the command that makes one shard of it."""

    def extract(k=0):
        command = ["--langs", "sw", "--splits", "test", "--limit", 9, "--layers", "2", "--out", tmp_path / "a"]
        return recalib("extract", *command, "--shard", f"{k}/{SHARDS}", "--json")

    os.environ["SOURCE_DATE_EPOCH"] = "0"
    try:
        for k in range(SHARDS):
            assert extract(k).code == 0
        yield extract, tmp_path / "a"
    finally:
        del os.environ["SOURCE_DATE_EPOCH"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
        lambda data: data.replace(b"harmful", b"harmfuk", 1),
        lambda data: data.replace(b'\\"layers\\": [2]', b'\\"layers\\": [3]', 1),
        lambda data: b"\xff" * 8 + data[8:],
    ],
    ids=["last byte gone", "half gone", "empty", "too long", "a bit of a row", "a label", "layers", "length of header"],
)
def test_a_damaged_shard_is_made_again(finished, damage):
    extract, folder = finished
    expected = contents(folder)
    path = folder / "sw" / "test" / "harmful.shard-0-of-2.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert contents(folder) != expected
    assert extract().json["skipped"] == 1
    assert contents(folder) == expected


def test_leftovers_of_another_shard_are_not_touched(finished):
    extract, folder = finished
    ours, theirs = (folder / "sw" / "test" / f".harmful.shard-{k}-of-2.safetensors.1.tmp" for k in (0, 1))
    for path in (ours, theirs):
        path.write_bytes(b"left by a killed process, or being written")
    assert extract(0).code == 0
    assert (ours.exists(), theirs.exists()) == (False, True)


def test_a_full_disk_is_an_error_and_leaves_what_was_finished(tmp_path):
    """The limit on a file's size stands for the disk: the small cell fits, the large one does not."""
    tiny.save("llama", tmp_path / "model")
    rows = [("harmful", i) for i in range(4)] + [("harmless", i) for i in range(90)]
    lines = [f'{{"prompt": "w{i} w{i + 1}", "language": "en", "label": "{label}"}}' for label, i in rows]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    command = [sys.executable, "-m", "recalib", "extract", "--model", tmp_path / "model", "--splits", "train"]
    command += ["--data", tmp_path / "p.jsonl", "--out", tmp_path / "a", "--device", "cpu"]

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16384, resource.RLIM_INFINITY))

    def run(limit):
        return subprocess.run(
            [*map(str, command)], preexec_fn=limit, capture_output=True, text=True, check=False, env=os.environ
        )

    ran = run(full)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert re.search(r"error: .*harmless\.safetensors: File too large", ran.stderr)
    assert "free space" in ran.stderr
    written = contents(tmp_path / "a")
    assert [path.name for path in written] == ["harmful.safetensors"]
    assert not list((tmp_path / "a").rglob("*.tmp"))
    assert run(None).returncode == 0
    assert written.items() <= contents(tmp_path / "a").items()
    assert len(contents(tmp_path / "a")) == 2


def test_two_processes_at_one_shard(finished):
    from filelock import FileLock

    extract, folder = finished
    with contextlib.ExitStack() as stack:
        stack.enter_context(FileLock(folder / ".lock.shard-0-of-2"))
        ran = extract(0)
        assert ran.code == 1
        assert "another extraction is writing to it" in ran.err
        assert extract(1).code == 0
