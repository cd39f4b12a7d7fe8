"""Artifacts: nothing damaged, foreign or newer is ever accepted."""

import contextlib
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save, save_file
from safetensors.torch import save_file as save_torch

from recalib import artifact
from recalib.errors import ArtifactError, CorruptArtifactError
from recalib.fingerprint import Fingerprint
from recalib.gate.gate import Gate, GateMeta
from recalib.gate.readout import Readout, SourceRows
from recalib.gate.threshold import Threshold

SCHEMA = "recalib.test/1"


@dataclass(frozen=True)
class Meta:
    name: str
    layers: tuple[int, ...] = ()


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "a.safetensors"
    artifact.write(path, SCHEMA, {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, Meta("a", (1, 2)))
    return path


def a_gate(hidden=8, rank=2, **meta):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(hidden, rank)))[0]
    readout = Readout(rng.normal(size=rank), np.ones(rank), rng.normal(size=rank), 0.5)
    source = SourceRows(rng.normal(size=(10, rank)), np.arange(10) % 2)
    threshold = Threshold(0.25, "transferred", 0)
    return Gate(basis[:, 0], basis, readout, source, GateMeta(3, "t_post_inst", 2.0, threshold, **meta))


def test_round_trip(written):
    tensors, meta = artifact.read(written, SCHEMA, Meta)
    assert meta == Meta("a", (1, 2))
    assert np.array_equal(tensors["x"], [[0, 1, 2], [3, 4, 5]])


@given(st.integers(min_value=0, max_value=400))
def test_any_truncation_is_refused(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("cut") / "g.safetensors"
    a_gate().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(length * len(whole) // 401, len(whole) - 1)])
    with pytest.raises(CorruptArtifactError, match="truncated"):
        Gate.load(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(written):
    before = written.read_bytes()
    with pytest.raises(RuntimeError), artifact.atomic(written, "wb") as handle:
        handle.write(b"half of it")
        raise RuntimeError("killed here")
    assert written.read_bytes() == before
    assert [p.name for p in written.parent.iterdir()] == [written.name]


def streamed(path, rows, order):
    """`rows` written in that order, in pieces of up to two."""
    ids = np.arange(len(rows))
    with artifact.streaming(path, SCHEMA, "x", rows.shape, {"ids": ids}, Meta('ä"\\', (1, 2))) as put:
        for i in range(0, len(order), 2):
            put(order[i : i + 2], rows[order[i : i + 2]])
    return path.read_bytes()


@pytest.mark.parametrize("shape", [(5, 2, 3), (1, 1), (0, 4), (7,)])
def test_a_streamed_file_is_what_safetensors_writes(tmp_path, rng, shape):
    path, rows = tmp_path / "s.safetensors", rng.normal(size=shape).astype(np.float32)
    written = streamed(path, rows, list(rng.permutation(len(rows))))
    tensors, meta = artifact.read(path, SCHEMA, Meta)
    assert np.array_equal(tensors["x"], rows)
    assert list(tensors["ids"]) == list(range(len(rows)))
    assert meta == Meta('ä"\\', (1, 2))
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert written == save({"x": rows, "ids": np.arange(len(rows))}, metadata)
    assert written == streamed(path, rows, list(range(len(rows))))
    assert artifact.intact(path)


def test_no_flipped_bit_of_a_streamed_file_goes_unnoticed(tmp_path, rng):
    """The seal finds all but those in its own name and digits: what is read then is an error or as it was."""
    path, rows = tmp_path / "s.safetensors", rng.normal(size=(3, 4)).astype(np.float32)
    written = streamed(path, rows, [0, 1, 2])
    _, whole = artifact.read(path, SCHEMA, Meta)
    missed = 0
    for i, bit in enumerate(rng.integers(8, size=len(written))):
        damaged = bytearray(written)
        damaged[i] ^= 1 << int(bit)
        path.write_bytes(damaged)
        if artifact.intact(path):
            missed += 1
            with contextlib.suppress(ArtifactError):
                tensors, meta = artifact.read(path, SCHEMA, Meta)
                assert meta == whole
                assert np.array_equal(tensors["x"], rows)
    assert missed < 80
    for length in range(len(written)):
        path.write_bytes(written[:length])
        assert not artifact.intact(path)


def test_foreign_safetensors_is_refused(tmp_path):
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "f.safetensors")
    with pytest.raises(ArtifactError, match="not an artifact of recalib"):
        Gate.load(tmp_path / "f.safetensors")


@pytest.mark.parametrize("text", ["no json", "[]", '{"no": "schema"}', '{"schema": 3}', "null"])
def test_malformed_metadata_is_refused(tmp_path, text):
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "f.safetensors", metadata={"recalib": text})
    with pytest.raises(ArtifactError, match="not an artifact of recalib"):
        Gate.load(tmp_path / "f.safetensors")


def test_a_wrong_type_in_the_metadata_names_the_field(tmp_path):
    document = json.dumps({"schema": SCHEMA, "name": "a", "layers": ["not a number"]})
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "f.safetensors", metadata={"recalib": document})
    with pytest.raises(ArtifactError, match=r"layers\.0"):
        artifact.read(tmp_path / "f.safetensors", SCHEMA, Meta)


def test_a_newer_schema_says_upgrade(written):
    with pytest.raises(ArtifactError, match=r"recalib\.test/1.*reads recalib\.test/0") as caught:
        artifact.read(written, "recalib.test/0", Meta)
    assert "upgrade" in caught.value.fix


def test_another_kind_of_artifact_is_named(written):
    with pytest.raises(ArtifactError, match=r"is recalib\.test/1, but recalib\.gate/1 is needed"):
        Gate.load(written)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    artifact.write(tmp_path / "n.safetensors", SCHEMA, {"x": np.array([1.0, value], np.float32)}, Meta("n"))
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        artifact.read(tmp_path / "n.safetensors", SCHEMA, Meta)


def test_bfloat16_of_other_tools_is_read_as_float32(tmp_path):
    document = json.dumps({"schema": SCHEMA, "name": "b"})
    path = tmp_path / "b.safetensors"
    save_torch({"x": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}, path, metadata={"recalib": document})
    tensors, _ = artifact.read(path, SCHEMA, Meta)
    assert tensors["x"].dtype == np.float32
    assert np.array_equal(tensors["x"], [1.5, -2.0])


def test_a_gate_survives_the_disk(tmp_path):
    gate = a_gate(model=Fingerprint(model="m", hidden_size=8), sources=("en", "de"))
    refit = replace(gate.readout, weight=gate.readout.weight * 2, bias=1.5)
    gate = gate.with_threshold(
        "sw", refit, Threshold(1.0, "f1", 4, seed=7, harmful_shot_ids=(1, 2, 3, 4)), np.ones((4, 8))
    )
    gate = gate.with_threshold("yo", gate.readout, Threshold(2.0, "midpoint", 1), np.ones((2, 8)))
    gate.save(tmp_path / "g.safetensors")
    loaded = Gate.load(tmp_path / "g.safetensors")
    assert replace(loaded.meta, origin=None) == gate.meta
    rows = np.random.default_rng(1).normal(size=(5, 8))
    for language in ("sw", "yo", "xx", None):
        np.testing.assert_allclose(loaded.scores(rows, language), gate.scores(rows, language), rtol=1e-5)
    assert not np.allclose(loaded.scores(rows, "sw"), loaded.scores(rows, "yo"))
    np.testing.assert_array_equal(loaded.source.labels, gate.source.labels)


def test_a_gate_with_little_metadata_is_accepted(tmp_path):
    """Another tool wrote only what the contract asks for."""
    gate = a_gate()
    tensors = {
        "direction": gate.direction,
        "basis": gate.basis,
        "feature_mean": gate.readout.mean,
        "feature_scale": gate.readout.scale,
        "weight": gate.readout.weight,
        "bias": np.array(0.5),
    }
    document = {
        "schema": "recalib.gate/1",
        "layer": 3,
        "position": "t_post_inst",
        "strength": 1.0,
        "transferred": {"value": 0.0, "method": "transferred", "shots": 0},
        "written_by": "another tool",
    }
    path = tmp_path / "g.safetensors"
    save_file(
        {k: np.asarray(v, np.float32) for k, v in tensors.items()}, path, metadata={"recalib": json.dumps(document)}
    )
    loaded = Gate.load(path)
    assert loaded.meta.model == Fingerprint()
    assert loaded.rank == 2


def test_a_gate_whose_tensors_do_not_fit_is_refused(tmp_path):
    gate = a_gate()
    replace(gate, direction=gate.direction[:5]).save(tmp_path / "g.safetensors")
    with pytest.raises(ArtifactError, match=r"'direction' has shape \[5\], expected \[8\]"):
        Gate.load(tmp_path / "g.safetensors")


def test_fingerprints_contradict_only_where_both_know():
    full = Fingerprint("a/b", "rev1", None, "Llama", 64, 4, "tok", "tmpl")
    assert full.conflicts(Fingerprint()) == []
    assert full.conflicts(Fingerprint("/copy/of/b", architecture="Llama", hidden_size=64)) == []
    assert full.conflicts(replace(full, num_layers=5, chat_template="x")) == ["chat_template", "num_layers"]
    assert full.conflicts(replace(full, revision="rev2")) == ["revision"]
    assert full.conflicts(replace(full, revision="rev2", model="fork/b")) == []
