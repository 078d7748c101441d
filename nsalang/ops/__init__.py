"""The kernels of examples/ as functions on torch tensors, each a ``torch.library`` operator.

Signatures follow the libraries that define the operations (DeepSeek's inference code, FlashMLA, DeepGEMM, flash-attention). Every function

- takes strided tensors as they are: leading axes are folded as views, and where strides do not allow that, there is one launch for each index;
- allocates its results contiguous, unless it says otherwise, and never waits for the device: it may be captured in a CUDA graph once it has run;
- works under ``torch.compile(fullgraph=True)``;
- has no gradient yet: a backward pass that reaches it raises NSA0403;
- takes ``backend="auto" | "triton" | "tilelang"``: auto is Triton on a GPU, and TileLang's C on the CPU;
- raises ``nsalang.NsaError`` before any launch: NSA0504 for what is no tensor or no number where one is wanted, NSA0506 for a wrong dtype, NSA0508 for a
  wrong number of axes, NSA0509 for an extent that does not fit the others, NSA0511 for tensors on several devices, NSA0514 for sizes that the kernel does
  not take, NSA0515 for a cache whose pages or tokens lie apart, NSA0516 for a wrong option, NSA0607 for an unknown backend.

Importing this package imports no torch; taking a function from it does, and defines ``torch.ops.nsalang.*``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nsalang.ops.dense import act_quant as act_quant
    from nsalang.ops.dense import attention as attention
    from nsalang.ops.dense import matmul as matmul
    from nsalang.ops.indexer import fp8_index as fp8_index
    from nsalang.ops.indexer import mqa_logits as mqa_logits
    from nsalang.ops.indexer import paged_mqa_logits as paged_mqa_logits
    from nsalang.ops.sparse import sparse_mla as sparse_mla
    from nsalang.ops.sparse import sparse_mqa_sink as sparse_mqa_sink
    from nsalang.ops.sparse_decode import sparse_mla_decode as sparse_mla_decode
    from nsalang.ops.sparse_decode import sparse_mla_fp8_decode as sparse_mla_fp8_decode

_WHERE = {
    "act_quant": "dense",
    "attention": "dense",
    "fp8_index": "indexer",
    "matmul": "dense",
    "mqa_logits": "indexer",
    "paged_mqa_logits": "indexer",
    "sparse_mla": "sparse",
    "sparse_mla_decode": "sparse_decode",
    "sparse_mla_fp8_decode": "sparse_decode",
    "sparse_mqa_sink": "sparse",
}
__all__ = [
    "act_quant",
    "attention",
    "fp8_index",
    "matmul",
    "mqa_logits",
    "paged_mqa_logits",
    "sparse_mla",
    "sparse_mla_decode",
    "sparse_mla_fp8_decode",
    "sparse_mqa_sink",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'nsalang.ops' has no attribute '{name}'")
    import importlib

    found = getattr(importlib.import_module(f"nsalang.ops.{_WHERE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
