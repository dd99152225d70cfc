"""Changes of the code, one place at a time, each of which is a mutant."""

# pyright: reportMissingImports=false

import ast
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("rules", "training", "metrics", "records/statistics.py")
"""Where places are drawn, below `fa_jax`."""
UNTESTED = ("training/distributed.py", "training/cache.py", "training/progress.py")
"""Modules that are left out: what they do is seen by several processes, on disk or on a terminal."""


class Mutant(NamedTuple):
    """One change of one place."""

    module: str
    """The path below `fa_jax`."""
    line: int
    operator: str
    occurrence: int
    """The number of the place among those of the operator in the module."""
    source: str
    """A digest of the module before the change."""

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies it in the table."""
        return self.module, self.operator, str(self.occurrence), self.source


def mutants(module: str) -> Iterator[tuple[tuple[int, int], Mutant]]:
    """Yields the changes of a module that cosmic-ray knows, each with its place."""
    import cosmic_ray.plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    text = (CHECKOUT / "fa_jax" / module).read_text()
    source, tree = hashlib.sha256(text.encode()).hexdigest()[:8], get_ast(text)
    for name in cosmic_ray.plugins.operator_names():
        operator = cosmic_ray.plugins.get_operator(name)
        if operator.arguments():  # has to be told what to do
            continue
        places = (place for node in ast_nodes(tree) for place in operator().mutation_positions(node))
        for occurrence, (start, _) in enumerate(places):
            yield start, Mutant(module, start[0], name, occurrence, source)


def mutated(text: str, mutant: Mutant) -> str:
    """Returns the text of a module with one change."""
    import cosmic_ray.plugins
    from cosmic_ray.mutating import mutate_code

    changed = mutate_code(text, cosmic_ray.plugins.get_operator(mutant.operator)(), mutant.occurrence)
    assert changed is not None
    return changed


def sample(n: int, seed: int, packages: Sequence[str] = PACKAGES) -> list[Mutant]:
    """Returns changes of places drawn at random from packages, one of each place; annotations are no place."""
    paths = [CHECKOUT / "fa_jax" / package for package in packages]
    files = sorted({file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])})
    modules = [file.relative_to(CHECKOUT / "fa_jax").as_posix() for file in files]
    by_place: dict[tuple, list[Mutant]] = {}
    for module in modules:
        if module not in UNTESTED:
            for place, mutant in mutants(module):
                by_place.setdefault((module, *place), []).append(mutant)
    draw, chosen = random.Random(seed), []
    for place in draw.sample(sorted(by_place), len(by_place)):
        mutant = draw.choice(by_place[place])
        text = (CHECKOUT / "fa_jax" / mutant.module).read_text()
        if meaning(mutated(text, mutant)) not in (None, meaning(text)):
            chosen.append(mutant)
        if len(chosen) == n:
            break
    return chosen


def meaning(text: str) -> str | None:
    """Returns what a module does, its annotations aside; None: it is no Python."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


def changed_line(before: str, after: str) -> tuple[str, str]:
    """Returns the first line that differs between two texts, in both."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next(((old.strip(), new.strip()) for old, new in pairs if old != new), ("", ""))


def found_again(row: Mapping[str, str]) -> Mutant | None:
    """Returns the change of a row in the present module, whose other lines may differ; None: the line has gone."""
    text = (CHECKOUT / "fa_jax" / row["module"]).read_text()
    alike = (mutant for _, mutant in mutants(row["module"]) if mutant.operator == row["operator"])
    same = [mutant for mutant in alike if changed_line(text, mutated(text, mutant)) == (row["before"], row["after"])]
    return min(same, key=lambda mutant: abs(mutant.line - int(row["line"])), default=None)
