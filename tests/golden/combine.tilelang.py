"""combine for cuda:sm_90, in TileLang.

A block makes one s x 8 h; blocks run through the last index fastest.
lse_unit = 0.6931471805599453, D = 512, lse = None, sink = None.
Dimensions and offsets fit 32 bits; addresses, strides and rows of part and o divide by 16 bytes, last strides are 1.
4 accesses: 4 guarded by a tail.
4 warps.
c: 512, for a span of 512
h: 8, what is left of 4096 elements
warps: 4, for 4096 elements of the widest value
"""

import tilelang.language as T


def entry():
    @T.prim_func
    def combine(
        part_ptr: T.handle,
        part_lse_ptr: T.handle,
        o_ptr: T.handle,
        S: T.int32,
        P: T.int32,
        H: T.int32,
        part_stride0: T.int32,
        part_stride1: T.int32,
        part_stride2: T.int32,
        part_lse_stride0: T.int32,
        part_lse_stride1: T.int32,
        part_lse_stride2: T.int32,
        o_stride0: T.int32,
        o_stride1: T.int32,
    ):
        part = T.make_tensor(part_ptr, (S, P, H, 512), "float32", (part_stride0, part_stride1, part_stride2, 1))
        part_lse = T.make_tensor(part_lse_ptr, (S, P, H), "float32", (part_lse_stride0, part_lse_stride1, part_lse_stride2))
        o = T.make_tensor(o_ptr, (S, H, 512), "bfloat16", (o_stride0, o_stride1, 1))
        T.assume(part_stride0 % 4 == 0)
        T.assume(part_stride1 % 4 == 0)
        T.assume(part_stride2 % 4 == 0)
        T.assume(o_stride0 % 8 == 0)
        T.assume(o_stride1 % 8 == 0)
        with T.Kernel(S * T.ceildiv(H, 8), threads=128) as pid:
            top = T.alloc_fragment((8,), "float32")
            part_lse_tile = T.alloc_fragment((8,), "float32")
            total = T.alloc_fragment((8,), "float32")
            acc = T.alloc_fragment((8, 512), "float32")
            part_lse_tile_2 = T.alloc_fragment((8,), "float32")
            weight = T.alloc_fragment((8,), "float32")
            part_tile = T.alloc_fragment((8, 512), "float32")
            share = T.alloc_fragment((8,), "float32")
            norm = T.alloc_fragment((8,), "float32")
            h_block = T.alloc_var("int32", T.truncmod(pid, T.ceildiv(H, 8)))  # combine:4
            h = h_block * 8
            T.assume(h % 8 == 0)
            s = T.alloc_var("int32", T.truncdiv(pid, T.ceildiv(H, 8)))
            T.fill(top, T.float32(-3.4028234663852886e38))  # combine:5
            for g in T.serial(P):  # combine:6
                for i, _ in T.Parallel(8, 1):  # combine:7
                    part_lse_tile[i] = T.if_then_else(h + i < H, part_lse[s, g, h + i], T.float32(0.0))
                for i in T.Parallel(8):
                    top[i] = T.max(top[i], part_lse_tile[i])
            T.clear(total)  # combine:8
            T.clear(acc)
            for g2 in T.serial(P):  # combine:9
                for i, _ in T.Parallel(8, 1):  # combine:10
                    part_lse_tile_2[i] = T.if_then_else(h + i < H, part_lse[s, g2, h + i], T.float32(0.0))
                for i in T.Parallel(8):
                    weight[i] = T.exp2(part_lse_tile_2[i] - top[i])
                for i in T.Parallel(8):  # combine:11
                    total[i] = total[i] + weight[i]
                for i, j in T.Parallel(8, 512):  # combine:12
                    part_tile[i, j] = T.if_then_else(h + i < H, part[s, g2, h + i, j], T.float32(0.0))
                for i, j in T.Parallel(8, 512):
                    acc[i, j] = acc[i, j] + weight[i] * part_tile[i, j]
            for i in T.Parallel(8):  # combine:13
                share[i] = total[i]
            for i in T.Parallel(8):  # combine:16
                norm[i] = 1.0 / share[i]
            for i, j in T.Parallel(8, 512):  # combine:17
                if h + i < H:
                    o[s, h + i, j] = T.cast(T.if_then_else(total[i] == 0.0, T.float32(0.0), acc[i, j] * norm[i]), "bfloat16")

    return combine
