"""Which of TileLang's passes run, where those are not its own pipeline: for the CPU, and before any code is generated.

On the CPU one thread runs a block, no buffer is shared and g++ simplifies what it compiles. So most passes that only make code shorter are left out: three
quarters of the time were theirs, in the solver that every condition is asked of (one stays, before layouts are inferred, which ask again). Left out
too is what makes negative indices positive: no index of ours is negative where it is used, and it asks of each (over a minute for checked
code); and the one that rewrites bf16 arithmetic: it drops roundings that must be made.
"""

from __future__ import annotations

from typing import Any


def cpu_passes(mod: Any, target: Any) -> Any:
    """A module of functions as device functions for TileLang's C target. As tilelang.cpu.pipeline of 0.1.15, less what is said above."""
    from tilelang import transform
    from tilelang.cpu.transform import LowerCPUAtomics
    from tvm import tirx

    for step in (
        tirx.transform.BindTarget(target),
        transform.MaterializeKernelLaunch(lower_thread_binding=False, unsupported_annotations=["cluster_dims"]),
        transform.AddWrapperForSingleBufStore(),
        transform.IfStmtBinding(),
        transform.Simplify(),
        transform.LayoutInference(),
        transform.LowerTileOp(),
        LowerCPUAtomics(),
        transform.LowerAccessPtr(),
        transform.PlanAndUpdateBufferAllocationLocation(),
        transform.HoistGlobalBufferAllocations(),
        transform.LowerOpaqueBlock(),
        tirx.transform.NarrowDataType(32),
        transform.FlattenBuffer(),
        transform.ConfigIndexBitwidth(),
        transform.VectorizeLoop(enable_vectorize=False),
        transform.StorageRewrite(),
        transform.UnrollLoop(),
        tirx.transform.AnnotateEntryFunc(),
        transform.AnnotateDeviceRegions(),
        transform.SplitHostDevice(),
        transform.AnnotateReadOnlyParams(),
        transform.MakePackedAPI(),
        transform.LowerDeviceKernelLaunch(),
    ):
        mod = step(mod)
    return mod


def prepared(kernels: Any) -> Any:
    """Device functions as code generation is given them, for every target. TileLang simplifies here, too: one to three seconds, since nothing is known
    of the parameters any more, for `-inf` in place of `inf * -1`, which every compiler folds."""
    from tilelang import transform

    return transform.HoistBroadcastValues()(transform.LowerIntrin()(kernels))
