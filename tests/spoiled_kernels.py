"""A kernel with one thing changed: what an author gets wrong, one at a time."""

from __future__ import annotations

import random
from dataclasses import replace

from kernel_trees import COMPARE, Model, Tree

ONE = ("c", 1)


def sites(tree: object, path: tuple[int, ...] = ()) -> list[tuple[tuple[int, ...], Tree]]:
    """Every node of a tree that begins with a string, with its path."""
    found: list[tuple[tuple[int, ...], Tree]] = []
    if isinstance(tree, tuple):
        if tree and isinstance(tree[0], str):
            found.append((path, tree))
        for n, part in enumerate(tree):
            found += sites(part, (*path, n))
    return found


def put(tree: Tree, path: tuple[int, ...], new: object) -> Tree:
    """The tree with the node at ``path`` replaced; None takes it out of the tuple that holds it."""
    at = path[0]
    inner = () if len(path) > 1 else ((new,) if new is not None else ())
    return (*tree[:at], *((put(tree[at], path[1:], new),) if len(path) > 1 else inner), *tree[at + 1 :])


def bump(e: Tree, r: random.Random) -> Tree:
    by = r.choice([1, -1])
    return ("c", e[1] + by) if e[0] == "c" else ("+", e, ONE) if by > 0 else ("-", e, ONE)


INTEGER = ("c", "d", "s", "i", "+", "-", "*", "//", "%", "min", "max")


KINDS = (
    *("index", "fold", "hazard") * 4,
    *("constant", "view", "compare", "guard") * 2,
    *("require", "promise", "extent", "swap", "variable", "bound", "operator", "partial"),
)
"""What may be changed, as often as it should be."""


def spoil(model: Model, r: random.Random) -> Model:
    """The kernel with one thing changed, which may or may not matter."""
    for _ in range(20):
        kind = r.choice(KINDS)
        body = sites(model.body)
        if kind == "index":
            places = [(p, n) for p, n in body if n[0] in ("load", "store")]
            if places:
                path, node = r.choice(places)
                at = 2 if node[0] == "load" else 3
                position = r.randrange(len(node[at]))
                inner = [p for p, n in sites(node[at][position]) if n[0] in INTEGER] or [()]
                deeper = r.choice([(), r.choice(inner)])
                target = node[at][position]
                for step in deeper:
                    target = target[step]
                return replace(model, body=put(model.body, (*path, at, position, *deeper), bump(target, r)), note=kind)
        if kind == "compare":
            places = [(p, n) for p, n in body if n[0] in COMPARE]
            if places:
                path, node = r.choice(places)
                other = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}[node[0]]
                return replace(model, body=put(model.body, path, (other, *node[1:])), note=kind)
        if kind == "guard":
            places = [(p, n) for p, n in body if n[0] in ("where", "&") or (n[0] == "if" and len(n[2]) == 1)]
            if places:
                path, node = r.choice(places)
                new = node[2] if node[0] == "where" else node[r.choice([1, 2])] if node[0] == "&" else node[2][0]
                return replace(model, body=put(model.body, path, new), note=kind)
        if kind in ("require", "promise"):
            held = model.requires if kind == "require" else model.promises
            if held:
                left = list(held)
                gone = left.pop(r.randrange(len(left)))
                if kind == "promise" and gone[0] == "each" and r.random() < 0.6:
                    n = r.randrange(len(gone[2]))
                    bounds = list(gone[2])
                    bounds[n] = (
                        {"<": "<=", "<=": "<", ">=": ">=", ">": ">"}[bounds[n][0]],
                        bump(bounds[n][1], r) if bounds[n][0] == ">=" else bounds[n][1],
                    )
                    left.append((gone[0], gone[1], tuple(bounds)))
                return (
                    replace(model, requires=tuple(left), note=kind)
                    if kind == "require"
                    else replace(model, promises=tuple(left), note=kind)
                )
        if kind == "extent":
            n = r.randrange(len(model.tensors))
            tensor = model.tensors[n]
            if tensor[0].startswith("dim"):
                continue
            extents = list(tensor[2])
            if len(extents) > 1 and r.random() < 0.4:
                extents.insert(0, extents.pop())
            else:
                at = r.randrange(len(extents))
                extents[at] = bump(extents[at], r)
                if extents[at][0] == "c" and extents[at][1] < 1:
                    continue
            return replace(model, tensors=put(model.tensors, (n, 2), tuple(extents)), note=kind)
        if kind == "swap":
            places = [(p, n) for p, n in body if (n[0] == "load" and len(n[2]) > 1) or (n[0] == "store" and len(n[3]) > 1)]
            if places:
                path, node = r.choice(places)
                at = 2 if node[0] == "load" else 3
                return replace(model, body=put(model.body, (*path, at), (*node[at][1:], node[at][0])), note=kind)
        if kind == "variable":
            places = [(p, n) for p, n in body if n[0] == "i" and len(n) == 2]
            names = sorted({g[0] for g in model.grid} | {n[1] for _, n in places})
            if places:
                path, node = r.choice(places)
                return replace(model, body=put(model.body, path, ("i", r.choice(names))), note=kind)
        if kind == "bound":
            places = [(p, n) for p, n in body if n[0] == "for"]
            if places and r.random() < 0.7:
                path, node = r.choice(places)
                at = r.choice([3, 4])
                return replace(model, body=put(model.body, (*path, at), bump(node[at], r)), note=kind)
            n = r.randrange(len(model.grid))
            return replace(model, grid=put(model.grid, (n, 1), bump(model.grid[n][1], r)), note=kind)
        if kind == "operator":
            places = [(p, n) for p, n in body if n[0] in ("+", "-", "//", "%", "min", "max") and len(n) == 3]
            if places:
                path, node = r.choice(places)
                other = {"+": "-", "-": "+", "//": "%", "%": "//", "min": "max", "max": "min"}[node[0]]
                return replace(model, body=put(model.body, path, (other, *node[1:])), note=kind)
        if kind == "fold":
            places = [(p, n) for p, n in body if n[0] == "store"]
            if places:
                path, node = r.choice(places)
                at = r.randrange(len(node[3]))
                folded = (r.choice(["//", "%"]), node[3][at], ("c", 2))
                return replace(model, body=put(model.body, (*path, 3, at), folded), note=kind)
        if kind == "hazard":
            places = [(p, n) for p, n in body if n[0] in ("cast", ">>") or n[0] == "max" or (n[0] == "where" and n[1][0] == "!=")]
            if places:
                chosen = r.choice(sorted({n[0] for _, n in places}))
                path, node = r.choice([(p, n) for p, n in places if n[0] == chosen])
                new = node[2]
                if chosen == "cast":
                    new = ("cast", node[1], ("*", ("cast", "i64", node[2]), ("c", 3)))
                elif chosen == ">>":
                    new = (">>", node[1], ("-", node[2], ONE))
                return replace(model, body=put(model.body, path, new), note=kind)
        if kind == "view" and model.views:
            n, at = r.randrange(len(model.views)), r.choice([2, 5, 6])
            places = [(p, node) for p, node in sites(model.views[n][at], (n, at)) if node[0] in ("c", "d")]
            path, node = r.choice(places or [((n, 5), model.views[n][5])])
            new = r.choice([bump(node, r), ("c", node[1] + 4) if node[0] == "c" else ("+", node, ONE)])
            return replace(model, views=put(model.views, path, new), note=kind)
        if kind == "constant":
            places = [(p, n) for p, n in body if n[0] == "c" and len(n) == 2]
            if places:
                path, node = r.choice(places)
                return replace(model, body=put(model.body, path, ("c", r.choice([node[1] + 1, node[1] - 1, node[1] * 3]))), note=kind)
        if kind == "partial" and model.partial:
            return replace(model, partial=model.partial[1:], note=kind)
    return model
