"""The IR of a kernel: its nodes, and what walks over them."""

from nsalang.ir.kernel import AxisInfo as AxisInfo
from nsalang.ir.kernel import Check as Check
from nsalang.ir.kernel import GridIndex as GridIndex
from nsalang.ir.kernel import Kernel as Kernel
from nsalang.ir.kernel import Pin as Pin
from nsalang.ir.kernel import Promise as Promise
from nsalang.ir.kernel import Require as Require
from nsalang.ir.kernel import ScalarParam as ScalarParam
from nsalang.ir.kernel import Schedule as Schedule
from nsalang.ir.kernel import Tensor as Tensor
from nsalang.ir.kernel import View as View
from nsalang.ir.nodes import (
    COMPARISONS as COMPARISONS,
)
from nsalang.ir.nodes import (
    PLACES as PLACES,
)
from nsalang.ir.nodes import (
    Assign as Assign,
)
from nsalang.ir.nodes import (
    Barrier as Barrier,
)
from nsalang.ir.nodes import (
    Binary as Binary,
)
from nsalang.ir.nodes import (
    BinaryOp as BinaryOp,
)
from nsalang.ir.nodes import (
    Bitcast as Bitcast,
)
from nsalang.ir.nodes import (
    Border as Border,
)
from nsalang.ir.nodes import (
    Cast as Cast,
)
from nsalang.ir.nodes import (
    Const as Const,
)
from nsalang.ir.nodes import (
    Dim as Dim,
)
from nsalang.ir.nodes import (
    Dot as Dot,
)
from nsalang.ir.nodes import (
    Expr as Expr,
)
from nsalang.ir.nodes import (
    Fma as Fma,
)
from nsalang.ir.nodes import (
    For as For,
)
from nsalang.ir.nodes import (
    Full as Full,
)
from nsalang.ir.nodes import (
    If as If,
)
from nsalang.ir.nodes import (
    Index as Index,
)
from nsalang.ir.nodes import (
    Load as Load,
)
from nsalang.ir.nodes import (
    Node as Node,
)
from nsalang.ir.nodes import (
    Place as Place,
)
from nsalang.ir.nodes import (
    Proof as Proof,
)
from nsalang.ir.nodes import (
    Reduce as Reduce,
)
from nsalang.ir.nodes import (
    ReduceOp as ReduceOp,
)
from nsalang.ir.nodes import (
    Scalar as Scalar,
)
from nsalang.ir.nodes import (
    Scan as Scan,
)
from nsalang.ir.nodes import (
    Search as Search,
)
from nsalang.ir.nodes import (
    SpanAxis as SpanAxis,
)
from nsalang.ir.nodes import (
    Spread as Spread,
)
from nsalang.ir.nodes import (
    Stmt as Stmt,
)
from nsalang.ir.nodes import (
    Store as Store,
)
from nsalang.ir.nodes import (
    Unary as Unary,
)
from nsalang.ir.nodes import (
    UnaryOp as UnaryOp,
)
from nsalang.ir.nodes import (
    Value as Value,
)
from nsalang.ir.nodes import (
    Var as Var,
)
from nsalang.ir.nodes import (
    Where as Where,
)
from nsalang.ir.nodes import (
    binary as binary,
)
from nsalang.ir.nodes import (
    both as both,
)
from nsalang.ir.nodes import (
    const as const,
)
from nsalang.ir.nodes import (
    join as join,
)
from nsalang.ir.nodes import (
    plain as plain,
)
from nsalang.ir.walk import N as N
from nsalang.ir.walk import address as address
from nsalang.ir.walk import axes_of as axes_of
from nsalang.ir.walk import children as children
from nsalang.ir.walk import rewrite as rewrite
from nsalang.ir.walk import walk as walk
