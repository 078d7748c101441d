"""Compiled CUDA code, loaded and launched through the driver's C interface on torch's current stream; a CUDA graph can capture the launches."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nsalang.base.source import NsaError
from nsalang.toolchain import Launch

_MAX_DYNAMIC_SHARED = 8
_BUFFER_POINTER, _BUFFER_SIZE, _END = 1, 2, 0
_INVALID_CONTEXT, _NOT_INITIALIZED = 201, 3


def _driver() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NsaError.at("NSA0606", "the CUDA driver (libcuda.so.1) was not found", help="the target 'cpu' needs no device") from error
    u = ctypes.c_uint
    library.cuLaunchKernel.argtypes = [ctypes.c_void_p, u, u, u, u, u, u, u, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    return library


def _check(driver: ctypes.CDLL, status: int, doing: str) -> None:
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(text))
        said = text.value.decode() if text.value else f"error {status}"
        raise NsaError.at("NSA0606", f"the CUDA driver could not {doing}: {said}")


@dataclass(slots=True)
class _Loaded:
    """The function on each device that has launched it, and the modules that hold it."""

    functions: dict[int, int] = field(default_factory=dict)
    modules: list[ctypes.c_void_p] = field(default_factory=list)
    area: tuple[object, ...] = ()


def launcher(cubin: bytes, symbol: str, layout: str, picks: Sequence[tuple[int, bool]], threads: int, shared: int) -> Launch:
    """Launch ``symbol`` of ``cubin`` on the device of the first tensor argument, of which there must be one.

    ``layout`` has a struct format for each parameter, ``picks`` which argument it is and whether that is a tensor; ``threads`` in a block,
    ``shared`` bytes of dynamic shared memory. Raises NSA0606 where the driver refuses.
    """
    import torch

    driver = _driver()
    # Native alignment is what the parameter buffer of a launch has.
    parameters = struct.Struct("@" + layout)
    loaded, lock = _Loaded(), threading.Lock()
    buffer = ctypes.create_string_buffer(max(parameters.size, 1))
    size = ctypes.c_size_t(parameters.size)
    extra = (ctypes.c_void_p * 5)(_BUFFER_POINTER, ctypes.addressof(buffer), _BUFFER_SIZE, ctypes.addressof(size), _END)
    # ``extra`` holds addresses alone, which keep nothing alive.
    loaded.area = (buffer, size)
    first = next(i for i, tensor in picks if tensor)
    current_device = torch.cuda.current_device
    stream_of = torch._C._cuda_getCurrentRawStream
    launch_kernel = driver.cuLaunchKernel
    pack_into = parameters.pack_into
    floats = tuple(k for k, form in enumerate(layout) if form == "f")

    def load(device: int) -> int:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        _check(driver, driver.cuModuleLoadData(ctypes.byref(module), cubin), f"load the code of '{symbol}' on device {device}")
        _check(driver, driver.cuModuleGetFunction(ctypes.byref(function), module, symbol.encode()), f"find '{symbol}'")
        if shared:
            # Without it the driver gives a block 48 KB in all, of which the code's own static arrays take a part.
            _check(
                driver, driver.cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED, shared), f"give '{symbol}' {shared} bytes of shared memory"
            )
        assert function.value is not None
        loaded.modules.append(module)
        loaded.functions[device] = function.value
        return function.value

    def on_device(device: int, grid: int, values: list[Any]) -> None:
        for k in floats:
            values[k] = ctypes.c_float(values[k]).value
        stream = stream_of(device)
        with lock:
            function = loaded.functions.get(device)
            if function is None:
                # A thread that has made no runtime call yet has no context.
                torch.cuda.set_device(device)
                function = load(device)
            pack_into(buffer, 0, *values)
            status = launch_kernel(function, grid, 1, 1, threads, 1, 1, shared, stream, None, extra)
            if status in (_INVALID_CONTEXT, _NOT_INITIALIZED):
                torch.cuda.set_device(device)
                status = launch_kernel(function, grid, 1, 1, threads, 1, 1, shared, stream, None, extra)
        if status:
            _check(driver, status, f"launch '{symbol}'")

    def launch(grid: int, arguments: Sequence[Any]) -> None:
        if grid <= 0:
            return
        values = [arguments[i].data_ptr() if tensor else arguments[i] for i, tensor in picks]
        device = arguments[first].device.index
        if device == current_device():
            on_device(device, grid, values)
        else:
            with torch.cuda.device(device):
                on_device(device, grid, values)

    return launch
