"""Operators over whole tensors: quantisation, matrix product, dense attention."""

from __future__ import annotations

import torch
from torch import Tensor

from nsalang.base.source import NsaError
from nsalang.ops.operator import FLOATS, Operands, e4m3_of, launch, operator, operator_with_lse, pieces

# --------------------------------------------------------------------------------------------------------------------- act_quant


def act_quant(x: Tensor, block_size: int = 128, scale_fmt: str | None = None, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Quantise activations to e4m3, with one scale for every ``block_size`` values of a row.

    x: bf16 [..., N], N a multiple of block_size. Returns y, e4m3 [..., N] (fnuz on GPUs that have only that), and s, f32 [..., N // block_size],
    with x ≈ y * s: s is max(absmax, 1e-4) * (1 / 448), and y is x / s rounded to nearest even. With a ``scale_fmt`` ("ue8m0"; any text counts) s
    is rounded up to a power of two. A NaN does not count for absmax. As in the inference code of DeepSeek-V3.2 (``kernel.py``) and in SGLang.
    """
    y, s = _act_quant(x, block_size, scale_fmt, backend)
    return y, s


def _act_quant_empty(x: Tensor, block_size: int, scale_fmt: str | None, backend: str) -> tuple[Tensor, Tensor]:
    taken = Operands("act_quant")
    if x.dim() == 0:
        raise taken.error("NSA0508", "'x' has no axes; expected [..., N]")
    taken.take("x", x, (*(f"axis {i}" for i in range(x.dim() - 1)), "N"), (torch.bfloat16,))
    width = x.shape[-1]
    if block_size <= 0 or width % block_size:
        raise taken.error("NSA0514", f"the last axis of 'x' has extent {width}, which is no multiple of block_size = {block_size}")
    y = torch.empty(x.shape, dtype=e4m3_of(x.device), device=x.device)
    return y, torch.empty((*x.shape[:-1], width // block_size), dtype=torch.float32, device=x.device)


def _act_quant_run(x: Tensor, block_size: int, scale_fmt: str | None, backend: str) -> tuple[Tensor, Tensor]:
    y, s = _act_quant_empty(x, block_size, scale_fmt, backend)
    for x_part, y_part, s_part in pieces(x.dim() - 1, x, y, s):
        launch("act_quant", "act_quant", backend, x=x_part, y=y_part, s=s_part, G=block_size, ue8m0=scale_fmt is not None)
    return y, s


_act_quant = operator(
    "act_quant(Tensor x, int block_size, str? scale_fmt, str backend) -> (Tensor, Tensor)", _act_quant_run, _act_quant_empty
)

# ------------------------------------------------------------------------------------------------------------------------ matmul


def matmul(a: Tensor, b: Tensor, *, backend: str = "auto") -> Tensor:
    """The matrix product, accumulated in f32 and rounded once.

    a: bf16, f16 or f32 [M, K], or with leading axes [..., M, K]; b: of the same dtype, [K, N], or [..., K, N] with the same leading axes.
    Returns [..., M, N] of that dtype. f32 is IEEE, never tf32. Any strides: a transposed ``w.t()`` is no copy. As ``torch.matmul``, without
    broadcasting of axes.
    """
    found: Tensor = _matmul(a, b, backend)
    return found


def _matmul_empty(a: Tensor, b: Tensor, backend: str) -> Tensor:
    taken = Operands("matmul")
    taken.axes("a", a, *range(2, max(a.dim(), 2) + 1))
    leading = tuple(f"axis {i}" for i in range(a.dim() - 2))
    taken.take("a", a, (*leading, "M", "K"), (*FLOATS, torch.float32))
    taken.take("b", b, ("K", "N") if b.dim() == 2 else (*leading, "K", "N"), (a.dtype,))
    return torch.empty((*a.shape[:-1], b.shape[-1]), dtype=a.dtype, device=a.device)


def _matmul_run(a: Tensor, b: Tensor, backend: str) -> Tensor:
    c = _matmul_empty(a, b, backend)
    if b.dim() == 2:
        for a_part, c_part in pieces(a.dim() - 1, a, c):
            launch("matmul", "matmul", backend, a=a_part, b=b, c=c_part, T=a.dtype)
        return c
    for a_batch, b_batch, c_batch in pieces(a.dim() - 2, a, b, c):
        assert a_batch is not None and b_batch is not None and c_batch is not None
        for i in range(a_batch.shape[0]):
            launch("matmul", "matmul", backend, a=a_batch[i], b=b_batch[i], c=c_batch[i], T=a.dtype)
    return c


_matmul = operator("matmul(Tensor a, Tensor b, str backend) -> Tensor", _matmul_run, _matmul_empty)

# --------------------------------------------------------------------------------------------------------------------- attention


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    *,
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Dense attention: softmax(q kᵀ * softmax_scale) v, with grouped heads.

    q: bf16 or f16 [B, S, H, D]; k, v: of the same dtype [B, L, G, D], H a multiple of G; all three without B too. ``softmax_scale`` is D ** -0.5
    where left out. With ``causal`` the S queries are the last of the L positions. Returns o, as q, and with ``return_lse`` also the natural
    log-sum-exp of the scaled scores, f32 [B, H, S]. A row that sees no key: o = 0, lse = +inf. Layout and names as ``flash_attn_func``'s; the
    algorithm is online softmax (arXiv 2205.14135).
    """
    return _attention(return_lse, q, k, v, softmax_scale, causal, backend)


def _attention_empty(
    wants_lse: bool, q: Tensor, k: Tensor, v: Tensor, softmax_scale: float | None, causal: bool, backend: str
) -> tuple[Tensor, Tensor | None]:
    taken = Operands("attention")
    batch = ("B",) if taken.axes("q", q, 3, 4) == 4 else ()
    taken.take("q", q, (*batch, "S", "H", "D"), FLOATS)
    taken.take("k", k, (*batch, "L", "G", "D"), (q.dtype,))
    taken.take("v", v, (*batch, "L", "G", "D"), (q.dtype,))
    heads, groups = taken.size("H"), taken.size("G")
    if groups == 0 or heads % groups:
        raise taken.error("NSA0514", f"'q' has {heads} heads, and 'k' has {groups}; the former is a multiple of the latter")
    o = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    return o, torch.empty((*q.shape[:-3], heads, taken.size("S")), dtype=torch.float32, device=q.device) if wants_lse else None


def _attention_run(
    o: Tensor, lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, softmax_scale: float | None, causal: bool, backend: str
) -> None:
    scale = scale_of(softmax_scale, q)
    if q.dim() == 3:
        q, k, v, o, lse = q[None], k[None], v[None], o[None], None if lse is None else lse[None]
    launch("attention", "attention", backend, q=q, k=k, v=v, o=o, lse=lse, scale=scale, causal=causal, T=q.dtype)


def scale_of(scale: float | None, q: Tensor) -> float:
    """What scores are multiplied by: one over the root of the width of q where it is left out. Raises NSA0509 for a width of 0."""
    if scale is not None:
        return float(scale)
    if q.shape[-1] == 0:
        raise NsaError.at("NSA0509", "the last axis of 'q' has extent 0, which gives no scale", help="give the scale")
    return float(q.shape[-1] ** -0.5)


_attention = operator_with_lse(
    "attention(Tensor q, Tensor k, Tensor v, float? softmax_scale, bool causal, str backend)", _attention_empty, _attention_run
)
