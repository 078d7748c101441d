"""How long a call takes: CUDA graph replays on a GPU, the wall clock on the CPU, medians in microseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Method = Literal["graph", "events", "clock"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Median and least time of one call in microseconds, and how it was measured: over so many samples."""

    us: float
    least_us: float
    method: Method
    samples: int

    def gb_s(self, moved: int) -> float:
        """Gigabytes (10**9) a second where a call moves ``moved`` bytes."""
        return moved / self.us / 1e3


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the elements of tensors: what a kernel must move that reads or writes each once."""
    return sum(t.numel() * t.element_size() for t in tensors)


def measure(call: Callable[[], object], device: str, *, method: Method | None = None, budget: float = 0.5) -> Timing:
    """Time a call that has compiled already, for about ``budget`` seconds.

    On a GPU: ``graph`` (the default) replays a CUDA graph of several calls, so that no launch by the host is counted; ``events`` puts
    CUDA events around calls from the host. Successive calls of small kernels find their data in the L2 cache.
    """
    if device == "cpu":
        return _clock(call, budget)
    return _events(call, budget) if method == "events" else _graph(call, budget)


def _clock(call: Callable[[], object], budget: float) -> Timing:
    call()
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 1000):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e6)
    return Timing(statistics.median(times), min(times), "clock", len(times))


def _graph(call: Callable[[], object], budget: float) -> Timing:
    import torch

    call()
    torch.cuda.synchronize()
    single = _events(call, 0.02).us
    calls = max(1, min(50, int(2000 / max(single, 1.0))))
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        call()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(calls):
                call()
    timing = _events(graph.replay, budget)
    return Timing(timing.us / calls, timing.least_us / calls, "graph", timing.samples)


def _events(call: Callable[[], object], budget: float) -> Timing:
    """Each sample between two events; the samples are queued together, so that the device does not wait for the host."""
    import torch

    call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    samples = max(5, min(500, int(budget / max(time.perf_counter() - start, 1e-5))))
    pairs = [tuple(torch.cuda.Event(enable_timing=True) for _ in "ab") for _ in range(samples)]  # type: ignore[no-untyped-call]
    for before, after in pairs:
        before.record()
        call()
        after.record()
    torch.cuda.synchronize()
    times = [before.elapsed_time(after) * 1e3 for before, after in pairs]
    return Timing(statistics.median(times), min(times), "events", samples)
