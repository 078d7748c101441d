"""A case on a device: its outputs against the reference, the same bits each time, and rows in batches of several lengths."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_data import Case

import nsalang
from nsalang.base.source import NsaError

RUNS = 20
BATCHES = (1, 7, 64)
ROW = 5
"""The row that is looked at in batches."""
Row = dict[str, Any]


def kernel(case: Case, folder: Path, loaded: dict[str, Any]) -> Any:
    if case.kernel not in loaded:
        loaded[case.kernel] = getattr(nsalang.load(str(folder / f"{case.kernel}.nsa")), case.kernel)
    return loaded[case.kernel]


def has_batches(case: Case) -> bool:
    return bool(case.batch) and all(case.shapes[n][0][axis] == BATCHES[-1] for n, axis in case.batch.items())


def rows_of(case: Case, arguments: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """The arguments of so many rows, ROW among them."""
    first = 0 if batch == BATCHES[-1] else ROW - batch // 2
    return {n: a.narrow(case.batch[n], first, batch) if n in case.batch else a for n, a in arguments.items()}


def as_tuple(result: Any) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def same(a: torch.Tensor, b: torch.Tensor, keep: torch.Tensor | None) -> bool:
    return torch.equal(a, b) if keep is None else torch.equal(a[keep], b[keep])


def run_case(case: Case, backends: Sequence[str], device: str, folder: Path, loaded: dict[str, Any], once: bool) -> Iterator[Row]:
    """``once``: one run of each backend, and the reference on the CPU."""
    start = time.monotonic()
    arguments, made = case.made("cpu" if once else device)
    if once:
        arguments = {n: moved(a, device) if isinstance(a, torch.Tensor) else a for n, a in arguments.items()}
    reference = time.monotonic() - start
    entry = kernel(case, folder, loaded)
    names = [p.name for p in entry.signature.parameters if p.role == "out" and (not p.optional or case.options.get(p.name))]
    for backend in backends:
        row: Row = {
            "kernel": case.kernel,
            "case": case.name,
            "backend": backend,
            "ok": False,
            "worst": None,
            "why": "",
            "reference_s": reference,
        }
        begin = time.monotonic()
        try:
            outputs = as_tuple(entry(**arguments, backend=backend))
            verdict = made.check(*(o.cpu() if once else o for o in outputs))
            row |= {"why": verdict.complaint, "worst": verdict.worst}
            other = tuple(torch.empty_like(o) for o in outputs)
            runs = 1
            for _ in range(0 if once else RUNS - 1):
                for o in other:
                    o.fill_(float("nan"))
                entry(**{**arguments, **dict(zip(names, other, strict=True))}, backend=backend)
                runs += 1
                if not all(same(a, b, made.keep if i == 0 else None) for i, (a, b) in enumerate(zip(outputs, other, strict=True))):
                    row["why"] = row["why"] or f"other bits in run {runs}"
                    break
            row["runs"] = runs
            if has_batches(case) and not once:
                row["why"] = row["why"] or batch_complaint(case, entry, arguments, backend, made.keep)
                row["batches"] = list(BATCHES)
        except NsaError as error:
            row["why"] = f"{error.diagnostics[0].code} {error.diagnostics[0].sentence}"
        if device == "cuda":
            torch.cuda.synchronize()
        row |= {"ok": not row["why"], "seconds": time.monotonic() - begin}
        yield row


def moved(x: torch.Tensor, device: str) -> torch.Tensor:
    """On the device with the same strides, in an allocation that ends where it does."""
    if x.is_contiguous():
        return x.to(device)
    gap = x.storage_offset()
    size = gap + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) + 1
    flat = torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage(), 0, (size * x.element_size(),)).to(device)
    return flat.view(x.dtype).as_strided(x.shape, x.stride(), gap)


def batch_complaint(case: Case, entry: Any, arguments: dict[str, Any], backend: str, keep: torch.Tensor | None) -> str:
    """Whether a row has the same bits in batches of all sizes, under one schedule."""
    pins = {"schedule": dict(case.pins)} if case.pins else {}
    seen: list[tuple[torch.Tensor, ...]] = []
    for batch in BATCHES:
        at = ROW if batch == BATCHES[-1] else batch // 2
        outputs = as_tuple(entry(**rows_of(case, arguments, batch), backend=backend, **pins))
        seen.append(tuple(o.select(axis, at) for o, axis in zip(outputs, case.batch_out, strict=False)))
    mask = None if keep is None else keep.select(case.batch_out[0], ROW)
    for batch, found in zip(BATCHES[1:], seen[1:], strict=True):
        if not all(same(a, b, mask if i == 0 else None) for i, (a, b) in enumerate(zip(seen[0], found, strict=True))):
            return f"row {ROW} has other bits among {batch} than alone"
    return ""
