"""A kernel written in Python: y = a * x + residual, in bf16, rounded once. Run it: python examples/residual_scale.py"""

import nsalang
from nsalang.dims import M, N
from nsalang.language import Out, bf16, f32, fma, grid, tile


@nsalang.jit
def residual_scale(x: bf16[M, N], residual: bf16[M, N], y: Out[bf16[M, N]], a: f32 = 1.0) -> None:
    for m, n in grid(tile(M), tile(N)):
        y[m, n] = bf16(fma(f32(x[m, n]), a, f32(residual[m, n])))


def main() -> None:
    """Compare the kernel with torch on the CPU."""
    import torch

    x, residual = (torch.randn(100, 300).bfloat16() for _ in range(2))
    y = residual_scale(x, residual, a=0.5)
    wanted = (x.float() * 0.5 + residual.float()).bfloat16()  # the product by 0.5 is exact, so this rounds once too
    assert torch.equal(y, wanted)
    print("residual_scale agrees with torch on", tuple(y.shape))


if __name__ == "__main__":
    main()
