"""The operators of nsalang.ops on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import references as reference
import torch
from operator_cases import BACKEND, LOOSE, OPERATORS, U8, good
from torch import Tensor

# ---------------------------------------------------------------------------------------------------------------------------- GPU


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["triton", "tilelang"])
@pytest.mark.parametrize("made", [getattr(o, "values", (o,))[0] for o in OPERATORS])
def test_on_a_gpu(made: Callable[[], tuple[Any, tuple[Any, ...], tuple[Tensor, ...]]], backend: str) -> None:
    """The same results there, in an eager call and replayed from a CUDA graph after the inputs have changed and changed back."""
    operator, args, wanted = made()
    given = [a.cuda() if isinstance(a, Tensor) else backend if a == BACKEND else a for a in args]
    bound = LOOSE.get(made.__name__, reference.PREFILL)

    def check(found: Any) -> None:
        for one, other in zip((found,) if isinstance(found, Tensor) else found, wanted, strict=True):
            good(reference.wide(one.cpu()), reference.wide(other), bound)

    check(operator(*given))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = operator(*given)
    tensors = [(t, t.clone()) for t in given if isinstance(t, Tensor)]
    for tensor, _ in tensors:
        tensor.view(U8).zero_()
    graph.replay()
    for tensor, kept in tensors:
        tensor.copy_(kept)
    graph.replay()
    torch.cuda.synchronize()
    check(captured)
