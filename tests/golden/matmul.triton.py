"""matmul for cuda:sm_90, in Triton.

A program makes 128 m x 128 n; programs run through the last index fastest.
T = bf16.
Dimensions and offsets fit 32 bits; addresses, strides and rows of a, b and c divide by 16 bytes, last strides are 1.
A launch has checked that N % 128 == 0 and K % 64 == 0.
3 accesses: 3 hoisted (N % 128 == 0 and K % 64 == 0).
4 warps.
k: 64, summed over by a contraction, 128 bytes of a row
m: 128, rows of a contraction
n: 128, columns of a contraction
warps: 4, for accumulators and results of 16384 elements
stages: 3, the blocks that contractions read take 98304 bytes of 230400
"""

import triton
import triton.language as tl


@triton.jit
def matmul(a, b, c, M, K, N, a_stride0, b_stride0, c_stride0):
    pid = tl.program_id(0)
    n = pid % tl.cdiv(N, 128) * 128 + tl.arange(0, 128)  # matmul:2
    m = pid // tl.cdiv(N, 128) * 128 + tl.arange(0, 128)
    acc = tl.full((128, 128), 0.0, tl.float32)  # matmul:3
    for k_start in range(0, K, 64):  # matmul:4
        k = k_start + tl.arange(0, 64)
        a_tile = tl.load(a + m[:, None] * a_stride0 + k[None, :], mask=(m < M)[:, None], other=0.0)  # matmul:5
        b_tile = tl.load(b + k[:, None] * b_stride0 + n[None, :])
        acc = tl.dot(a_tile, b_tile, acc)
    tl.store(c + m[:, None] * c_stride0 + n[None, :], acc.to(tl.bfloat16), mask=(m < M)[:, None])  # matmul:6
