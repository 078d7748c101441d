"""The syntax tree of a kernel: one frozen dataclass a construct."""

from nsalang.syntax.nodes import (
    Assign as Assign,
)
from nsalang.syntax.nodes import (
    Attribute as Attribute,
)
from nsalang.syntax.nodes import (
    Augmented as Augmented,
)
from nsalang.syntax.nodes import (
    Binary as Binary,
)
from nsalang.syntax.nodes import (
    Bool as Bool,
)
from nsalang.syntax.nodes import (
    Call as Call,
)
from nsalang.syntax.nodes import (
    Compare as Compare,
)
from nsalang.syntax.nodes import (
    Conditional as Conditional,
)
from nsalang.syntax.nodes import (
    Constant as Constant,
)
from nsalang.syntax.nodes import (
    Expr as Expr,
)
from nsalang.syntax.nodes import (
    ExprStatement as ExprStatement,
)
from nsalang.syntax.nodes import (
    File as File,
)
from nsalang.syntax.nodes import (
    For as For,
)
from nsalang.syntax.nodes import (
    Function as Function,
)
from nsalang.syntax.nodes import (
    If as If,
)
from nsalang.syntax.nodes import (
    Keyword as Keyword,
)
from nsalang.syntax.nodes import (
    Name as Name,
)
from nsalang.syntax.nodes import (
    Node as Node,
)
from nsalang.syntax.nodes import (
    NoneLiteral as NoneLiteral,
)
from nsalang.syntax.nodes import (
    Number as Number,
)
from nsalang.syntax.nodes import (
    Parameter as Parameter,
)
from nsalang.syntax.nodes import (
    Paren as Paren,
)
from nsalang.syntax.nodes import (
    Pass as Pass,
)
from nsalang.syntax.nodes import (
    Return as Return,
)
from nsalang.syntax.nodes import (
    Slice as Slice,
)
from nsalang.syntax.nodes import (
    Statement as Statement,
)
from nsalang.syntax.nodes import (
    String as String,
)
from nsalang.syntax.nodes import (
    Subscript as Subscript,
)
from nsalang.syntax.nodes import (
    Tuple as Tuple,
)
from nsalang.syntax.nodes import (
    Unary as Unary,
)
