"""Finds in a behaviour's source what would make two runs of it differ.

Import-linter already refuses the modules of a clock or a socket; this looks at names, where it cannot:
`datetime` is fine and `datetime.now` is not, a set is fine and its order is not.
"""

from __future__ import annotations

import ast

from tests.architecture.source import imported_names

BANNED_MODULES = frozenset(
    {"time", "random", "uuid", "secrets", "socket", "threading", "asyncio", "ray", "duckdb"}
)
BANNED_NAMES = frozenset({"os.urandom", "os.getrandom", "os.getpid", "os.environ"})
CLOCK_METHODS = frozenset({"now", "utcnow", "today"})
SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference"})
# These give the order of what they iterate to their result. `sorted`, `len`, `any`, `min` and `sum` do not.
ORDERED_CALLS = frozenset(
    {"list", "tuple", "enumerate", "iter", "zip", "map", "filter", "next", "reversed", "dict"}
)


def impurities(source: str) -> list[str]:
    """One line of text for each fault, `line: what`, in order of lines."""
    tree = ast.parse(source)
    finder = _Finder()
    finder.visit(tree)
    imports = [
        (line, f"imports {name}")
        for name, line in imported_names(tree)
        if name.split(".")[0] in BANNED_MODULES or name in BANNED_NAMES
    ]
    return [f"{line}: {what}" for line, what in sorted(imports + finder.faults)]


class _Finder(ast.NodeVisitor):
    def __init__(self) -> None:
        self.faults: list[tuple[int, str]] = []
        # Names that hold a set where we are; a function sees its own and those around it.
        self.set_names: frozenset[str] = frozenset()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outside = self.set_names
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        declared = {arg.arg for arg in arguments if _is_set_annotation(arg.annotation)}
        self.set_names = (outside - {arg.arg for arg in arguments}) | declared
        self.generic_visit(node)
        self.set_names = outside

    def visit_Assign(self, node: ast.Assign) -> None:
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        self.set_names = self.set_names | names if self._is_set(node.value) else self.set_names - names
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name) and _is_set_annotation(node.annotation):
            self.set_names |= {node.target.id}
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._check_iterated(node.iter)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self._check_iterated(node.value)
        self.generic_visit(node)

    # A generator's order matters to some who consume it and not to others (`sorted(… for …)` is fine), so
    # generators are seen only through the calls below.
    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._check_comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._check_comprehension(node)

    def _check_comprehension(self, node: ast.ListComp | ast.DictComp) -> None:
        for generator in node.generators:
            self._check_iterated(generator.iter)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "hash":
            self.faults.append((node.lineno, "calls hash()"))
        is_join = isinstance(node.func, ast.Attribute) and node.func.attr == "join"
        if name in ORDERED_CALLS or is_join:
            for argument in node.args:
                self._check_iterated(argument)
                if isinstance(argument, ast.GeneratorExp):
                    self._check_iterated(argument.generators[0].iter)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = ast.unparse(node.value)
        if f"{owner}.{node.attr}" in BANNED_NAMES:
            self.faults.append((node.lineno, f"uses {owner}.{node.attr}"))
        if node.attr in CLOCK_METHODS and owner.split(".")[-1] in {"datetime", "date"}:
            self.faults.append((node.lineno, f"uses {owner}.{node.attr}"))
        self.generic_visit(node)

    def _check_iterated(self, node: ast.expr) -> None:
        if self._is_set(node):
            self.faults.append((node.lineno, f"depends on the order of the set {ast.unparse(node)}"))

    def _is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name):
                return name in self.set_names
            case ast.Call(func=ast.Name(id="set" | "frozenset")):
                return True
            case ast.Call(func=ast.Attribute(value=value, attr=method)) if method in SET_METHODS:
                return self._is_set(value)
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
                return self._is_set(left) or self._is_set(right)
            case _:
                return False


def _is_set_annotation(annotation: ast.expr | None) -> bool:
    text = ast.unparse(annotation) if annotation else ""
    return text.split("[")[0] in {"set", "frozenset", "AbstractSet"}
