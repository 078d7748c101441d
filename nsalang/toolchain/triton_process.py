"""The caller's side of running Triton programs on the CPU: one worker process, tensors through shared memory."""

from __future__ import annotations

import atexit
import ctypes
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nsalang.base.source import NsaError
from nsalang.lowering.program import Program
from nsalang.toolchain.triton_types import signature
from nsalang.toolchain.triton_worker import GAP_BYTE

GAP = 4096
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from nsalang.toolchain.triton_worker import main; main(*map(int, sys.argv[2:]))"


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes of the caller's memory that one or more arguments cover, and where they lie in the shared area."""

    address: int
    size: int
    offset: int


def _covered(tensor: Any) -> tuple[int, int]:
    """The first address that a tensor covers and the one after its last."""
    item = tensor.element_size()
    steps = [(extent - 1) * stride * item for extent, stride in zip(tensor.shape, tensor.stride(), strict=True)]
    first = tensor.data_ptr() + sum(s for s in steps if s < 0)
    return first, tensor.data_ptr() + sum(s for s in steps if s > 0) + item


def _lay_out(tensors: Sequence[Any]) -> tuple[list[_Range], list[tuple[int, int]], int]:
    """Ranges for all tensors, the gaps between them, and the size of the area. Arguments that overlap share a range, as they share memory."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(_covered(t) for t in tensors if t.numel()):
        if merged and first < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    ranges: list[_Range] = []
    gaps: list[tuple[int, int]] = []
    position = 0
    for first, last in merged:
        # The same offset within 128 bytes: what is aligned for the caller stays so.
        offset = (position + GAP + 127) // 128 * 128 + first % 128
        gaps.append((position, offset))
        ranges.append(_Range(first, last - first, offset))
        position = offset + last - first
    return ranges, [*gaps, (position, position + GAP)], position + GAP


def _shared_area(size: int) -> tuple[int, mmap.mmap]:
    descriptor = os.memfd_create("nsalang")
    try:
        # Allocated now, so that a lack of memory is an error here and no signal later.
        os.posix_fallocate(descriptor, 0, size)
        return descriptor, mmap.mmap(descriptor, size)
    except (OSError, MemoryError) as error:
        os.close(descriptor)
        raise NsaError.at("NSA0603", f"no memory to run a Triton program on the CPU: {size} bytes are needed") from error


class Worker:
    """A worker process and the socket to it. Start it with :func:`run`, which restarts one that has died."""

    def __init__(self) -> None:
        assert sys.platform == "linux", "Triton's packages are for Linux"
        if not sys.executable:
            raise NsaError.at("NSA0603", "cannot start the process that runs Triton on the CPU: this Python has no executable")
        self.owner = os.getpid()
        self.asked = 0
        self.socket, far = socket.socketpair()
        watched, self.lifeline = os.pipe()
        environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
        argv = [sys.executable, "-c", _START, json.dumps(sys.path), str(far.fileno()), str(watched), str(self.owner)]
        try:
            # A session of its own: Ctrl-C is the caller's to handle.
            self.process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=2, pass_fds=(far.fileno(), watched), start_new_session=True
            )
        except OSError as error:
            self.socket.close()
            os.close(self.lifeline)
            raise NsaError.at("NSA0603", f"cannot start the process that runs Triton on the CPU: {error}") from error
        finally:
            far.close()
            os.close(watched)
        try:
            ready = self._reply()
        except BaseException:
            self.stop()
            raise
        if ready["status"] != "ready":
            self.stop()
            raise NsaError.at("NSA0603", f"the process that runs Triton on the CPU cannot start: {ready['message']}")

    def stop(self) -> None:
        """End the process. In a fork of the owner only this side's descriptors are closed."""
        self.socket.close()
        os.close(self.lifeline)
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()

    def ask(self, request: dict[str, Any], descriptor: int) -> dict[str, Any]:
        """Send a request and wait for its reply. Raises what a dead worker means."""
        self.asked += 1
        body = json.dumps(request | {"number": self.asked}).encode()
        self.socket.settimeout(None)
        try:
            socket.send_fds(self.socket, [len(body).to_bytes(8, "little")], [descriptor])
            self.socket.sendall(body)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._death() from error
        reply = self._reply()
        assert reply["number"] == self.asked, "a reply to another request"
        return reply

    def _reply(self) -> dict[str, Any]:
        size = int.from_bytes(self._exactly(8), "little")
        reply: dict[str, Any] = json.loads(self._exactly(size))
        return reply

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        # Python looks at signals between two waits: one that another thread has taken does not end a wait of the main thread.
        self.socket.settimeout(0.25)
        while len(data) < size:
            try:
                part = self.socket.recv(size - len(data))
            except TimeoutError:
                continue
            except ConnectionResetError:
                part = b""
            if not part:
                raise self._death()
            data += part
        return bytes(data)

    def _death(self) -> Exception:
        status = self.process.wait()
        if status in (-signal.SIGSEGV, -signal.SIGBUS):
            return RuntimeError("a generated Triton program touched memory outside its arguments and ended its process")
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return NsaError.at(
            "NSA0603", f"the process that runs Triton on the CPU ended {how}", help="out of memory? A further call starts a new one."
        )


_lock = threading.Lock()
_worker: Worker | None = None


def traced(program: Program, programs: int, arguments: Sequence[Any]) -> dict[str, Any]:
    """As :func:`run`, and what the program reads and writes: arrays ``program``, ``line`` (of the generated source), ``written`` and ``address``
    (the caller's, of an element's first byte), one entry an element. An access outside every tensor is traced and does not happen."""
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="nsalang-") as folder:
        path = os.path.join(folder, "trace.npz")
        ranges = run(program, programs, arguments, trace=path)
        with np.load(path) as held:
            found = {name: held[name] for name in held.files}
    offset = found["address"]
    address = offset.copy()
    # What lies outside every tensor is taken for what lies before or behind the nearest one.
    starts = sorted((part.offset - GAP // 2, part.offset - part.address) for part in ranges)
    for first, shift in starts:
        address = np.where(offset >= first, offset - shift, address)
    return found | {"address": address}


def run(program: Program, programs: int, arguments: Sequence[Any], trace: str = "") -> list[_Range]:
    """Run ``programs`` instances of a Triton program on CPU tensors and copy back what changed.

    Tensors may have any strides and may overlap. ``trace``: a file that gets the accesses (:func:`traced`). Returns where the tensors lay. Raises RuntimeError for a fault of the program, NSA0603 where the process or memory fails.
    """
    global _worker
    tensors = [value for value, about in zip(arguments, program.arguments, strict=True) if about.kind == "pointer"]
    ranges, gaps, size = _lay_out(tensors)
    descriptor, area = _shared_area(size)
    view = (ctypes.c_char * size).from_buffer(area)
    base = ctypes.addressof(view)
    try:
        for first, last in gaps:
            ctypes.memset(base + first, GAP_BYTE, last - first)
        for part in ranges:
            ctypes.memmove(base + part.offset, part.address, part.size)
        request = {
            "source": program.source, "entry": program.entry, "programs": programs, "size": size, "gaps": gaps, "trace": trace,
            "arguments": [[kind, _place(value, ranges)] for kind, value in zip(signature(program), arguments, strict=True)],
        }  # fmt: skip
        with _lock:
            if _worker is not None and (_worker.owner != os.getpid() or _worker.process.poll() is not None):
                _worker.stop()
                _worker = None
            if _worker is None:
                _worker = Worker()
            try:
                reply = _worker.ask(request, descriptor)
            except BaseException:
                # Also an interrupt: the reply that is still to come would be taken for the next one's.
                _worker.stop()
                _worker = None
                raise
        if reply["status"] == "memory":
            raise NsaError.at("NSA0603", "the process that runs Triton on the CPU ran out of memory")
        if reply["status"] != "ok":
            where = f" (line {reply['line']} of the generated source: {reply['text']})" if reply.get("line") else ""
            raise RuntimeError(f"fault in generated Triton program '{program.entry}': {reply['message']}{where}")
        compare = ctypes.CDLL(None).memcmp
        compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        for part in ranges:
            # Memory that the program left alone is not written: it may be read-only.
            if compare(base + part.offset, part.address, part.size):
                ctypes.memmove(part.address, base + part.offset, part.size)
        return ranges
    finally:
        del view
        area.close()
        os.close(descriptor)


def _place(value: Any, ranges: Sequence[_Range]) -> float:
    """A number as it is, a tensor as its first element's offset in the area. An empty tensor points at nothing that may be touched."""
    if isinstance(value, int | float):
        return value
    if not value.numel():
        return 0
    address: int = value.data_ptr()
    return next(part.offset + address - part.address for part in ranges if part.address <= address < part.address + part.size)


@atexit.register
def _stop() -> None:
    if _worker is not None:
        _worker.stop()
