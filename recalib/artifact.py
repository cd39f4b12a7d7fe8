"""Reading and writing artifacts: safetensors with one metadata key, `recalib`, that holds JSON.

Files are written under a temporary name in the target folder and renamed, so a reader never sees
half of one. Nothing here unpickles; whatever is read is treated as untrusted.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from recalib.errors import ArtifactError, CorruptArtifactError

KEY = "recalib"
M = TypeVar("M")
Put = Callable[[Sequence[int], np.ndarray], None]
_BLANK = b"0" * 64
# as it stands in the header, where the document is a JSON string inside JSON
_SEAL = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})')
_DTYPES = {"float32": "F32", "int64": "I64"}


@dataclass(frozen=True)
class Origin:
    """When and with what an artifact was made; `versions` maps package to version."""

    created: str
    versions: dict[str, str]

    @classmethod
    def now(cls) -> "Origin":
        """The present, or SOURCE_DATE_EPOCH (seconds) where a reproducible build sets it."""
        seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
        return cls(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)), dict(_versions()))


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Package and version; kept, because looking them up takes longer than writing a small file."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package in ("recalib", "torch", "transformers", "numpy", "scikit-learn"):
        with contextlib.suppress(PackageNotFoundError):
            found.append((package, version(package)))
    return tuple(found)


@contextlib.contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file handle whose content appears at `path` only once the block has ended well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    encoding = None if "b" in mode else "utf-8"
    try:
        with temporary.open(mode, encoding=encoding) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        # writing to an open file fails without saying to which
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, schema: str, tensors: Mapping[str, np.ndarray], metadata: Any) -> None:
    """Write `tensors` and a metadata dataclass as one artifact, atomically."""
    from safetensors.numpy import save

    document = json.dumps({"schema": schema, **asdict(metadata)}, ensure_ascii=False)
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    with atomic(path, "wb") as handle:
        handle.write(save(contiguous, metadata={KEY: document}))


@contextlib.contextmanager
def streaming(
    path: Path,
    schema: str,
    name: str,
    shape: tuple[int, ...],
    tensors: Mapping[str, np.ndarray],
    metadata: Any,
) -> Iterator[Put]:
    """Write an artifact one of whose tensors, `name`, float32 of that shape, comes in pieces, in any order.

    The value puts `values` [k, ...] at the tensor's `rows` [k], of which every one must be put once; memory does
    not grow with them. The rest is as for `write`, but for a seal: the SHA-256 of the whole file with the seal's
    own digits as zeros, by which `intact` tells a damaged file.
    """
    document = json.dumps({"schema": schema, "sha256": _BLANK.decode(), **asdict(metadata)}, ensure_ascii=False)
    kinds = {key: (tensor.dtype, tensor.shape) for key, tensor in tensors.items()}
    header, begin = _layout({name: (np.dtype(np.float32), shape), **kinds}, document)
    stride = 4 * math.prod(shape[1:])
    with atomic(path, "w+b") as handle:
        handle.write(header)
        for key, tensor in tensors.items():
            handle.seek(begin[key])
            handle.write(np.ascontiguousarray(tensor))

        def put(rows: Sequence[int], values: np.ndarray) -> None:
            for row, value in zip(rows, np.ascontiguousarray(values, np.float32), strict=True):
                handle.seek(begin[name] + row * stride)
                handle.write(value)

        yield put
        handle.seek(len(header))
        seal = _digest(header, handle)
        handle.seek(header.index(_BLANK))
        handle.write(seal)


def intact(path: Path) -> bool:
    """Whether every byte is as `streaming` wrote it; nothing is known against a file that has no seal."""
    with path.open("rb") as handle:
        length = handle.read(8)
        size = int.from_bytes(length, "little")
        if 8 + size > path.stat().st_size:
            return False
        header = length + handle.read(size)
        seal = _SEAL.search(header)
        if seal is None:
            return True
        return _digest(header.replace(seal[1], _BLANK, 1), handle) == seal[1]


def schema_of(path: Path) -> str:
    """The schema name of an artifact, such as `recalib.gate/1`. Raises ArtifactError."""
    with _opened(path) as file:
        return str(_document(file, path)["schema"])


def read_metadata(path: Path, schema: str, kind: type[M]) -> M:
    """The metadata of an artifact of that schema as a dataclass `kind`. Raises ArtifactError."""
    with _opened(path) as file:
        return _metadata(file, path, schema, kind)


def read(path: Path, schema: str, kind: type[M]) -> tuple[dict[str, np.ndarray], M]:
    """All tensors (float32, or as stored for integers) and the metadata. Raises ArtifactError."""
    with _opened(path) as file:
        metadata = _metadata(file, path, schema, kind)
        return {name: finite(file.get_tensor(name), name, path) for name in _names(file)}, metadata


def read_slice(path: Path, name: str, index: tuple[Any, ...]) -> np.ndarray:
    """Part of one tensor, float32, without reading the rest from disk. Raises ArtifactError."""
    with _opened(path) as file:
        if name not in _names(file):
            raise ArtifactError(f"{path}: has no tensor {name!r}")
        return finite(file.get_slice(name)[index], name, path)


def has_tensor(path: Path, name: str) -> bool:
    """Whether the file holds a tensor of that name. Raises ArtifactError."""
    with _opened(path) as file:
        return name in _names(file)


def shape_of(path: Path, name: str) -> tuple[int, ...]:
    """Shape of one tensor. Raises ArtifactError."""
    with _opened(path) as file:
        if name not in _names(file):
            raise ArtifactError(f"{path}: has no tensor {name!r}")
        return tuple(file.get_slice(name).get_shape())


def finite(tensor: Any, name: str, path: Path) -> np.ndarray:
    """The torch tensor as NumPy, floats as float32. Raises ArtifactError for NaN and infinity."""
    array: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ArtifactError(
            f"{path}: {name!r} contains NaN or infinity",
            fix="extract again; with --dtype float32 if the model overflows in half precision",
        )
    return array


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _layout(
    tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], document: str
) -> tuple[bytes, dict[str, int]]:
    """The head of a safetensors file, as that library writes it, and where in the file each tensor begins."""
    entries: dict[str, Any] = {"__metadata__": {KEY: document}}
    end = 0
    for name, (dtype, shape) in sorted(tensors.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
        begin, end = end, end + dtype.itemsize * math.prod(shape)
        entries[name] = {"dtype": _DTYPES[dtype.name], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + entries[name]["data_offsets"][0] for name in tensors}


def _digest(header: bytes, handle: IO[bytes]) -> bytes:
    """Hex SHA-256 of a header and all that follows in the file."""
    digest = hashlib.sha256(header)
    while chunk := handle.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest().encode()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    # torch rather than NumPy as framework: other tools write bfloat16, which NumPy cannot hold
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ArtifactError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CorruptArtifactError(
            f"{path}: not a safetensors file, or truncated ({error})", fix="make it again"
        ) from error


def _names(file: Any) -> list[str]:
    return list(file.keys())


def _document(file: Any, path: Path) -> dict[str, Any]:
    try:
        document = json.loads((file.metadata() or {}).get(KEY, "null"))
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("schema"), str):
        raise ArtifactError(f"{path}: a safetensors file, but not an artifact of recalib's")
    return document


def _metadata(file: Any, path: Path, schema: str, kind: type[M]) -> M:
    from pydantic import TypeAdapter, ValidationError

    document = _document(file, path)
    found = document.pop("schema")
    name, _, version = schema.partition("/")
    found_name, _, found_version = found.partition("/")
    if found_name != name:
        raise ArtifactError(f"{path}: is {found}, but {schema} is needed here")
    if found_version != version:
        raise ArtifactError(
            f"{path}: has schema {found}, and this version of recalib reads {schema}",
            fix="upgrade recalib, or make the file again with this version",
        )
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{path}: metadata field {where!r}: {first['msg']}") from error
