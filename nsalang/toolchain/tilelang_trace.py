"""TileLang's C for the CPU with every access to the caller's tensors noted: the same text, in which a pointer is an object that tells of itself."""

from __future__ import annotations

import ctypes
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nsalang.lowering.program import Program
from nsalang.toolchain.tilelang_compile import compile_text
from nsalang.toolchain.tilelang_lower import lower

_NOTES = """
#include <stdint.h>
#include <vector>
static int64_t nsa_block = 0;
static std::vector<int64_t> nsa_notes, nsa_first, nsa_last;
static bool nsa_note(const void* at, int written, int64_t size) {
  int64_t a = (int64_t)at;
  nsa_notes.push_back(nsa_block); nsa_notes.push_back(a); nsa_notes.push_back(written);
  for (std::size_t i = 0; i < nsa_first.size(); ++i) if (nsa_first[i] <= a && a + size <= nsa_last[i]) return true;
  return false;
}
template <typename T> struct nsa_cell {
  T* at;
  operator T() const { return nsa_note(at, 0, sizeof(T)) ? *at : T(0); }
  nsa_cell& operator=(T value) { if (nsa_note(at, 1, sizeof(T))) *at = value; return *this; }
  nsa_cell& operator=(const nsa_cell& other) { return *this = (T)other; }
};
template <typename T> struct nsa_traced {
  T* first;
  nsa_cell<T> operator[](int64_t i) const { return nsa_cell<T>{(T*)((intptr_t)first + i * (int64_t)sizeof(T))}; }
};
extern "C" void nsa_begin(const int64_t* first, const int64_t* last, int64_t count) {
  nsa_block = 0; nsa_notes.clear(); nsa_first.assign(first, first + count); nsa_last.assign(last, last + count);
}
extern "C" int64_t nsa_count() { return (int64_t)nsa_notes.size(); }
extern "C" const int64_t* nsa_taken() { return nsa_notes.data(); }
"""

_KINDS: dict[str, Any] = {
    "Q": ctypes.c_void_p, "b": ctypes.c_int8, "B": ctypes.c_uint8, "h": ctypes.c_int16, "H": ctypes.c_uint16, "i": ctypes.c_int32,
    "I": ctypes.c_uint32, "q": ctypes.c_int64, "f": ctypes.c_float, "d": ctypes.c_double, "?": ctypes.c_bool,
}  # fmt: skip


def traced_text(text: str, symbol: str, pointers: Sequence[str], several: bool) -> str:
    """The C++ text with its pointers traced. ``several``: it has a loop over blocks, the outermost."""
    definition = re.search(rf"^int32_t {symbol}\([^)]*\) \{{$", text, re.MULTILINE)
    assert definition is not None, f"the text does not define {symbol}"
    head, body = text[: definition.start()], text[definition.start() :]
    signature, brace, rest = body.partition("{\n")
    made = []
    for name in pointers:
        found = re.search(rf"(\w+)\* (?:__restrict__ )?{name}\b", signature)
        assert found is not None, f"{symbol} has no pointer {name}"
        signature = f"{signature[: found.start()]}{found[1]}* {name}_first{signature[found.end() :]}"
        made.append(f"  nsa_traced<{found[1]}> {name}{{{name}_first}};\n")
    if several:
        loop = re.search(r"^  for \(int\d+_t (\w+) = (?:\(int64_t\))?0; .*\{\n", rest, re.MULTILINE)
        assert loop is not None, f"{symbol} has no loop over its blocks"
        rest = f"{rest[: loop.end()]}    nsa_block = {loop[1]};\n{rest[loop.end() :]}"
    return _NOTES + head + signature + brace + "".join(made) + rest


class Traced:
    """A program for the CPU that notes what it reads and writes."""

    def __init__(self, program: Program, several: bool) -> None:
        lowered = lower(program)
        pointers = [name for name, form in lowered.parameters if form == "Q"]
        library = compile_text(program, traced_text(lowered.text, lowered.symbol, pointers, several))
        with tempfile.TemporaryDirectory(prefix="nsalang-") as folder:
            path = Path(folder, "traced.so")
            path.write_bytes(library)
            self.library = ctypes.CDLL(str(path))
        self.names = [name for name, _ in lowered.parameters]
        self.run = self.library[lowered.symbol]
        self.run.argtypes = [_KINDS[form] for _, form in lowered.parameters]
        self.run.restype = ctypes.c_int32

    def __call__(self, arguments: dict[str, Any], parts: Sequence[tuple[int, int]]) -> Any:
        """Run it: ``arguments`` by name, a pointer as its address; ``parts``: (first, last) address of memory that may be touched. Returns rows of
        (block, address, whether it is written)."""
        ends = ctypes.c_int64 * max(1, len(parts))
        self.library.nsa_begin(ends(*(a for a, _ in parts)), ends(*(b for _, b in parts)), ctypes.c_int64(len(parts)))
        self.run(*(arguments[name] for name in self.names))
        self.library.nsa_count.restype = ctypes.c_int64
        self.library.nsa_taken.restype = ctypes.POINTER(ctypes.c_int64)
        count = self.library.nsa_count()
        if not count:
            return np.zeros((0, 3), dtype=np.int64)
        return np.ctypeslib.as_array(self.library.nsa_taken(), shape=(count,)).reshape(-1, 3).copy()
