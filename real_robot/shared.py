"""Memory-mapped files between the processes on one machine: blocks under a sequence lock, and rings.

A file belongs to the process that created it, which alone removes it; the death of a process that merely
attached leaves it alone (``multiprocessing.shared_memory`` before Python 3.13 would unlink it).  Each block
and each ring has one writer.  Readers copy, then check the sequence number and a CRC-32, so a torn write is
never read, also where the processor reorders stores.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palmar.safety.types import PalmarError

MAGIC = b"PALMARSM"
VERSION = 1
HEADER_SIZE = 8192
_HEADER = struct.Struct("<8sIIQII")
"""Magic, version, CRC of the description, size of the file, length of the description, owner's process id."""
READ_TRIES = 50


class SharedMemoryError(PalmarError):
    """A shared file that is missing, foreign, of another version, robot or size."""


class TornRead(PalmarError):
    """No consistent copy could be read: the writer died in mid-write or never stops writing."""


@dataclass(frozen=True)
class Description:
    """What a file holds; every size follows from it."""

    kind: str
    """Key of ``palmar.real_robot.layout.LAYOUTS``."""
    robot: str
    """Hash of the robot model."""
    joints: tuple[str, ...]
    objects: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    """Further sizes the layout needs, such as nq, nv and nstate of a simulated robot."""


@dataclass(frozen=True)
class Layout:
    """Blocks by name, and rings by name with their capacity in records."""

    blocks: dict[str, np.dtype]
    rings: dict[str, tuple[np.dtype, int]]


class Block:
    """One record: a single writer, any number of readers."""

    HEAD = 64
    """Sequence number and CRC, on a cache line of their own."""

    def __init__(self, memory: memoryview, dtype: np.dtype):
        self.dtype = dtype
        self.record = np.zeros((), dtype)
        """The writer's scratch record: fill it, then ``write``."""
        self._seq = np.frombuffer(memory[:8], np.uint64)
        self._crc = np.frombuffer(memory[8:12], np.uint32)
        self._data = memory[self.HEAD : self.HEAD + dtype.itemsize]
        self._latest: np.void | None = None

    @property
    def version(self) -> int:
        """Counts writes (twice); 0 was never written, odd is being written."""
        return int(self._seq[0])

    def write(self) -> None:
        """Publish ``record``."""
        data = self.record.tobytes()
        start = int(self._seq[0]) | 1  # a predecessor killed in mid-write leaves an odd number
        self._seq[0] = start
        self._data[:] = data
        self._crc[0] = zlib.crc32(data)
        self._seq[0] = start + 1

    def read(self) -> np.void | None:
        """A consistent copy, or None if nothing was ever written.

        Raises:
            TornRead: If none was to be had.
        """
        for attempt in range(READ_TRIES):
            before = int(self._seq[0])
            if before == 0:
                return None
            if before % 2 == 0:
                data, crc = bytes(self._data), int(self._crc[0])
                if int(self._seq[0]) == before and zlib.crc32(data) == crc:
                    return np.frombuffer(data, self.dtype)[0]
            if attempt > 3:
                time.sleep(20e-6)
        raise TornRead(f"no consistent copy in {READ_TRIES} tries, sequence {self.version}")

    def latest(self) -> np.void | None:
        """What ``read`` gives, or where that is torn what this gave last: its own stamp says how old it is."""
        try:
            self._latest = self.read()
        except TornRead:
            pass
        return self._latest


class Ring:
    """Records in order from one writer to one reader; a full ring drops the newest and counts it."""

    HEAD = 192
    """Head, tail and drops, each on a cache line of its own."""

    def __init__(self, memory: memoryview, dtype: np.dtype, capacity: int):
        self.dtype, self.capacity = dtype, capacity
        self.record = np.zeros((), dtype)
        """The writer's scratch record: fill it, then ``push``."""
        self._head = np.frombuffer(memory[:8], np.uint64)
        self._tail = np.frombuffer(memory[64:72], np.uint64)
        self._drop = np.frombuffer(memory[128:136], np.uint64)
        self._data = memory[self.HEAD : self.HEAD + dtype.itemsize * capacity]

    def __len__(self) -> int:
        return int(self._head[0]) - int(self._tail[0])

    @property
    def dropped(self) -> int:
        """Records lost because the reader was too slow."""
        return int(self._drop[0])

    def push(self) -> bool:
        """Append ``record``; False if it was dropped."""
        head = int(self._head[0])
        if head - int(self._tail[0]) >= self.capacity:
            self._drop[0] += np.uint64(1)
            return False
        size = self.dtype.itemsize
        at = head % self.capacity * size
        self._data[at : at + size] = self.record.tobytes()
        self._head[0] = head + 1
        return True

    def drain(self, limit: int = 4096) -> np.ndarray:
        """Take up to ``limit`` of the oldest records, (k,)."""
        tail, head = int(self._tail[0]), int(self._head[0])
        count, size = min(head - tail, limit), self.dtype.itemsize
        first = tail % self.capacity
        one = min(count, self.capacity - first)
        data = bytes(self._data[first * size : (first + one) * size])
        data += bytes(self._data[: (count - one) * size])
        self._tail[0] = tail + count
        return np.frombuffer(data, self.dtype)


class SharedMap:
    """A mapped file of blocks and rings; see ``create`` and ``attach``."""

    def __init__(self, path: Path, description: Description, layout: Layout, *, owned: bool):
        self.path, self.description, self.owned = path, description, owned
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._view = memoryview(self._map)
        self.blocks: dict[str, Block] = {}
        self.rings: dict[str, Ring] = {}
        at = HEADER_SIZE
        for name, dtype in layout.blocks.items():
            self.blocks[name] = Block(self._view[at:], dtype)
            at += _aligned(Block.HEAD + dtype.itemsize)
        for name, (dtype, capacity) in layout.rings.items():
            self.rings[name] = Ring(self._view[at:], dtype, capacity)
            at += _aligned(Ring.HEAD + dtype.itemsize * capacity)

    def close(self) -> None:
        """Unmap; the owner also removes the file."""
        self.blocks, self.rings = {}, {}
        if self.owned:
            self.path.unlink(missing_ok=True)


def create(path: Path, description: Description, layout: Layout) -> SharedMap:
    """A new file, whole and zeroed before it appears under its name.

    Raises:
        SharedMemoryError: If the description is too long or the path already exists.
    """
    text = json.dumps(asdict(description)).encode()
    if len(text) > HEADER_SIZE - _HEADER.size:
        raise SharedMemoryError(f"description of {len(text)} bytes, at most {HEADER_SIZE - _HEADER.size} fit")
    size = _size(layout)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    with temporary.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(size)
        file.write(_HEADER.pack(MAGIC, VERSION, zlib.crc32(text), size, len(text), os.getpid()) + text)
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise SharedMemoryError(f"{path} exists: its owner runs, or died without removing it") from error
    finally:
        temporary.unlink()
    return SharedMap(path, description, layout, owned=True)


def describe(path: Path) -> Description:
    """The description in a file's header, without mapping the rest.

    Raises:
        SharedMemoryError: If it is missing, foreign, damaged, truncated or of another version.
    """
    try:
        with path.open("rb") as file:
            head, actual = file.read(HEADER_SIZE), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise SharedMemoryError(f"cannot open {path}: {error}") from error
    if len(head) < HEADER_SIZE or head[:8] != MAGIC:
        raise SharedMemoryError(f"{path} is no Palmar memory: starts with {head[:8]!r}, need {MAGIC!r}")
    _, version, crc, size, length, _ = _HEADER.unpack_from(head)
    if version != VERSION:
        raise SharedMemoryError(f"{path} has version {version}, this Palmar reads {VERSION}")
    if actual != size:
        raise SharedMemoryError(f"{path} has {actual} bytes, its header says {size}")
    text = head[_HEADER.size : _HEADER.size + length]
    if zlib.crc32(text) != crc:
        raise SharedMemoryError(f"{path}: description damaged (CRC {zlib.crc32(text)}, header says {crc})")
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
    return Description(**fields)


def owner(path: Path) -> int:
    """Process id of the file's owner, dead or alive."""
    describe(path)
    with path.open("rb") as file:
        return int(_HEADER.unpack(file.read(_HEADER.size))[5])


def attach(path: Path, layouts: dict[str, Any], *, kind: str, robot: str | None = None) -> SharedMap:
    """Map a file someone else owns.

    Args:
        path: The file.
        layouts: Layout function per kind.
        kind: The kind it must have.
        robot: Hash of the robot model it must have been made for; None takes any.

    Raises:
        SharedMemoryError: If ``describe`` refuses it, or kind, robot or size differ.
    """
    description = describe(path)
    if description.kind != kind:
        raise SharedMemoryError(f"{path} is of kind {description.kind!r}, need {kind!r}")
    if robot is not None and description.robot != robot:
        raise SharedMemoryError(f"{path} was made for robot {description.robot[:12]}, not {robot[:12]}")
    layout = layouts[kind](description)
    if _size(layout) != path.stat().st_size:
        raise SharedMemoryError(f"{path} has {path.stat().st_size} bytes, its layout needs {_size(layout)}")
    return SharedMap(path, description, layout, owned=False)


def wait_attach(path: Path, layouts: dict[str, Any], *, kind: str, robot: str | None, timeout: float) -> SharedMap:
    """``attach``, waiting up to ``timeout`` seconds for the file to appear."""
    end = time.monotonic() + timeout
    while not path.exists():
        if time.monotonic() > end:
            raise SharedMemoryError(f"{path} did not appear within {timeout} s: its owner did not start")
        time.sleep(0.02)
    return attach(path, layouts, kind=kind, robot=robot)


def directory() -> Path:
    """Where shared files go: the shared-memory file system, else the temporary directory."""
    shm = Path("/dev/shm")
    return shm if os.access(shm, os.W_OK) else Path(tempfile.gettempdir())


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def _size(layout: Layout) -> int:
    blocks = sum(_aligned(Block.HEAD + d.itemsize) for d in layout.blocks.values())
    return HEADER_SIZE + blocks + sum(_aligned(Ring.HEAD + d.itemsize * c) for d, c in layout.rings.values())
