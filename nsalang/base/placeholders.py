"""What the names of the language are to Python: good in the annotations of a decorated function, which it evaluates, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from nsalang.base.source import NsaError


def outside(name: str) -> NsaError:
    """The error for a name of the language that Python was asked to compute with."""
    return NsaError.at(
        "NSA0121",
        f"`{name}` belongs to the language of kernels: it stands in the text of a function under `@nsalang.jit`, or in a .nsa file",
    )


@dataclass(frozen=True, slots=True)
class Outside:
    """A name that a kernel's text uses, and that in Python is something that no kernel can take: ``what``, in words."""

    what: str


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A function or a word of the language. Calling it or computing with it raises NsaError NSA0121."""

    name: str

    def _refuse(self, *_: object, **__: object) -> object:
        raise outside(self.name)

    __call__ = __getitem__ = __iter__ = __bool__ = __neg__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse

    def __or__(self, other: None) -> Placeholder:
        return self

    def __repr__(self) -> str:
        return f"nsalang.language.{self.name}"


@dataclass(frozen=True, slots=True)
class Role:
    """``Out[f32[M]]`` and ``InOut[…]``."""

    name: str

    def __getitem__(self, item: object) -> TensorType:
        return TensorType(self.name, (item,))

    # Without this, __getitem__ would make it an endless sequence.
    __iter__ = None

    def __call__(self, *_: object, **__: object) -> object:
        raise outside(self.name)

    def __repr__(self) -> str:
        return f"nsalang.language.{self.name}"


@dataclass(frozen=True, slots=True)
class TensorType:
    """An annotation as Python evaluates it: ``name`` is the dtype or the role, ``items`` the extents or the tensor's own type."""

    name: str
    items: tuple[object, ...]

    def __or__(self, other: None) -> TensorType:
        return self

    def __repr__(self) -> str:
        return f"{self.name}[{', '.join(map(repr, self.items))}]"


@dataclass(frozen=True, slots=True)
class Dimension:
    """A dimension's name, or an integer expression of such names. ``text`` is what stands for it in a message."""

    text: str

    def _binary(self, op: str, left: object, right: object) -> Dimension:
        return Dimension(f"({left!r} {op} {right!r})")

    def __add__(self, other: object) -> Dimension:
        return self._binary("+", self, other)

    def __radd__(self, other: object) -> Dimension:
        return self._binary("+", other, self)

    def __sub__(self, other: object) -> Dimension:
        return self._binary("-", self, other)

    def __rsub__(self, other: object) -> Dimension:
        return self._binary("-", other, self)

    def __mul__(self, other: object) -> Dimension:
        return self._binary("*", self, other)

    def __rmul__(self, other: object) -> Dimension:
        return self._binary("*", other, self)

    def __floordiv__(self, other: object) -> Dimension:
        return self._binary("//", self, other)

    def __rfloordiv__(self, other: object) -> Dimension:
        return self._binary("//", other, self)

    def __mod__(self, other: object) -> Dimension:
        return self._binary("%", self, other)

    def __rmod__(self, other: object) -> Dimension:
        return self._binary("%", other, self)

    def __neg__(self) -> Dimension:
        return Dimension(f"-{self!r}")

    def __index__(self) -> int:
        raise outside(self.text)

    def __bool__(self) -> bool:
        raise outside(self.text)

    def __call__(self, *_: object, **__: object) -> object:
        raise outside(self.text)

    def __repr__(self) -> str:
        return self.text
