"""Random small kernels that hold every kind of obligation: right by construction, and then, half of them, spoilt in one place.

``generate(random)`` is plain Python, for long runs; ``kernels()`` is the same as a hypothesis strategy. What a kernel does wrong is for the
oracle (``kernel_oracle``) to say: a spoilt one may still be right.
"""

from __future__ import annotations

import random

from generated_bodies import Bodies
from generated_indices import Axis
from hypothesis import strategies as st
from kernel_trees import Model, Tree, nodes
from spoiled_kernels import spoil


class Build(Bodies):
    """A whole kernel."""

    def kernel(self) -> Model:
        grid = []
        for _ in range(self.r.choice([1, 1, 2, 2, 3])):
            grid.append(Axis(self.name("a"), self.extent(), "tiled" if self.odds(0.5) else "plain"))
        body: list[Tree] = []
        makers = [self.cover, self.inner, self.inner, self.in_place]
        makers += [self.reckon] * len(makers)
        if {"atomic_add", "scatter"} & self.features:
            makers.append(self.collide)
        if "view" in self.features:
            makers.append(self.halves)
        for _ in range(self.r.choice([1, 1, 2])):
            body += self.flush(self.r.choice(makers)(list(grid)))
        for d in sorted(
            {
                n[1]
                for part in (self.tensors, self.requires, self.views, body, [g.limit for g in grid])
                for n in nodes(tuple(part))
                if n[0] == "d"
            }
        ):
            if not any(t[3] == "in" and ("d", d) in t[2] for t in self.tensors):
                self.tensors.append((f"dim{d}", "f32", (("d", d),), "in"))
        shape = tuple((g.name, g.limit, not g.scalar) for g in grid)
        return Model(tuple(self.tensors), tuple(self.scalars), tuple(self.requires), tuple(self.promises), tuple(self.partial),
                     tuple(self.spans), shape, tuple(body), tuple(self.views))  # fmt: skip


def generate(r: random.Random, features: frozenset[str] = frozenset()) -> Model:
    """A kernel; every second one is spoilt."""
    model = Build(r, features).kernel()
    return spoil(model, r) if r.random() < 0.5 else model


def kernels(features: frozenset[str] = frozenset()) -> st.SearchStrategy[Model]:
    """The same as a hypothesis strategy, which makes a failing kernel smaller."""
    return st.randoms(use_true_random=False).map(lambda r: generate(r, features))
