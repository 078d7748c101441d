"""The process that runs generated Triton programs on the CPU: a loop over requests on a socket. Started by triton_process.

A request is eight bytes of length, sent with the descriptor of a shared memory area, and that much JSON: source, entry, target, the number of
programs, the arguments (a pointer is an offset into the area), the gaps between tensors, and the file to which accesses are traced, if any. The reply is JSON of the same form.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import linecache
import mmap
import os
import select
import socket
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any

GAP_BYTE = 0xA5


def _watch(lifeline: int, parent: int) -> None:
    """End this process when the parent has ended, however it ended and whatever the main thread does."""
    while not select.select([lifeline], [], [], 2.0)[0] and os.getppid() == parent:
        pass
    os._exit(0)


def _receive(sock: socket.socket) -> tuple[dict[str, Any], int] | None:
    head, descriptors, _flags, _address = socket.recv_fds(sock, 8, 1)
    if len(head) < 8:
        return None
    body = bytearray()
    while len(body) < int.from_bytes(head, "little"):
        part = sock.recv(int.from_bytes(head, "little") - len(body))
        if not part:
            return None
        body += part
    return json.loads(body), descriptors[0]


def _send(sock: socket.socket, reply: dict[str, Any]) -> None:
    body = json.dumps(reply).encode()
    sock.sendall(len(body).to_bytes(8, "little") + body)


def _load(source: str, entry: str, loaded: dict[str, Any]) -> Callable[..., None]:
    """The kernel as a function that the interpreter can call, made once for each text."""
    from nsalang.toolchain import triton_interpreter

    key = hashlib.sha256(f"{entry}\n{source}".encode()).hexdigest()
    if key not in loaded:
        name = f"<nsalang {entry} {key[:12]}>"
        module = types.ModuleType(f"nsalang_program_{key[:12]}")
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), module.__dict__)
        module.__dict__["range"] = triton_interpreter.loop
        loaded[key] = module.__dict__[entry].rewrite()
    function: Callable[..., None] = loaded[key]
    return function


def _arguments(request: dict[str, Any], base: int) -> list[Any]:
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    from nsalang.toolchain.triton_interpreter import scalar

    out = []
    for kind, value in request["arguments"]:
        if kind.startswith("*"):
            dtype = tl.pointer_type(tl.str_to_ty(kind[1:], None))
            out.append(tl.tensor(TensorHandle(np.array([base + value], dtype=np.uint64), dtype), dtype))
        else:
            out.append(scalar(value, tl.str_to_ty(kind, None)))
    return out


def _run(request: dict[str, Any], descriptor: int, loaded: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    from triton.runtime.interpreter import interpreter_builder

    from nsalang.toolchain.triton_trace import recorded

    with os.fdopen(descriptor, "rb") as file:
        area = mmap.mmap(file.fileno(), request["size"], mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    memory = np.frombuffer(area, dtype=np.uint8)
    kernel = _load(request["source"], request["entry"], loaded)
    arguments = _arguments(request, memory.ctypes.data)
    programs = request["programs"]
    interpreter_builder.set_grid_dim(programs, 1, 1)
    with recorded(request, memory.ctypes.data) if request["trace"] else contextlib.nullcontext() as trace:
        for program in range(programs):
            interpreter_builder.set_grid_idx(program, 0, 0)
            if trace is not None:
                trace.program = program
            kernel(*arguments)
    if any((memory[first:last] != GAP_BYTE).any() for first, last in request["gaps"]):
        return {"status": "fault", "message": "the program wrote outside its arguments"}
    return {"status": "ok"}


def _fault(error: BaseException, entry: str) -> dict[str, Any]:
    """The innermost line of the generated source that led to ``error``."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(f"<nsalang {entry} ")]
    line = frames[-1].lineno if frames else None
    text = (frames[-1].line or "").strip() if frames else ""
    return {"status": "fault", "message": f"{type(error).__name__}: {error}", "line": line, "text": text}


def main(socket_number: int, lifeline: int, parent: int) -> None:
    """Serve requests until the parent hangs up."""
    threading.Thread(target=_watch, args=(lifeline, parent), daemon=True).start()
    sock = socket.socket(fileno=socket_number)
    loaded: dict[str, Any] = {}
    try:
        import numpy as np

        from nsalang.toolchain import triton_interpreter

        triton_interpreter.install()
    except Exception as error:  # noqa: BLE001 (whatever it is, the parent is told)
        _send(sock, {"status": "unusable", "message": f"{type(error).__name__}: {error}"})
        return
    np.seterr(all="ignore")
    warnings.simplefilter("ignore")
    _send(sock, {"status": "ready"})
    while (received := _receive(sock)) is not None:
        request, descriptor = received
        try:
            reply = _run(request, descriptor, loaded)
        except MemoryError:
            reply = {"status": "memory"}
        except Exception as error:  # noqa: BLE001 (the generated program's, for the parent)
            reply = _fault(error, request["entry"])
        sys.stdout.flush()
        _send(sock, reply | {"number": request["number"]})
