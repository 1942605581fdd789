"""The domain decides and does nothing else: no waiting, no logging, no clock, no chance, no state of its own.

import-linter holds which packages it may import; this holds what imports cannot show.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.source import parse, python_files

FORBIDDEN_IMPORTS = frozenset(
    {"asyncio", "io", "logging", "multiprocessing", "os", "pathlib", "queue", "secrets", "select", "shutil", "signal"}
    | {"socket", "sqlite3", "subprocess", "sys", "tempfile", "threading", "time", "urllib"}
)
FORBIDDEN_CALLS = frozenset(
    {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "uuid.uuid1", "uuid.uuid4", "uuid4", "uuid1"}
    | {"open", "print", "input", "exec", "eval", "breakpoint"}
    | {f"random.{name}" for name in ("random", "randint", "choice", "choices", "sample", "shuffle", "seed", "uniform")}
)
"""`random.Random` as a parameter's type is fine: whoever calls brings the chance."""
MUTABLE_CALLS = frozenset({"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict"})
MUTABLE_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)

DOMAIN = python_files("agent/domain/", "controlplane/domain/")


def impurities(tree: ast.Module) -> list[str]:
    """What in a module is not pure, each with its line."""
    return [f"line {line}: {what}" for line, what in sorted([*_statements(tree), *_module_state(tree)])]


def _statements(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield node.lineno, "async"
            case ast.Import(names=names):
                yield from ((node.lineno, f"import {a.name}") for a in names if _root(a.name) in FORBIDDEN_IMPORTS)
            case ast.ImportFrom(module="pathlib", names=names) if all(a.name.startswith("Pure") for a in names):
                pass
            case ast.ImportFrom(module=str(module)) if _root(module) in FORBIDDEN_IMPORTS:
                yield node.lineno, f"from {module} import"
            case ast.Global():
                yield node.lineno, "global"
            case ast.Call(func=func) if (name := ast.unparse(func)) in FORBIDDEN_CALLS:
                yield node.lineno, f"{name}()"
            case _:
                pass


def _module_state(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _is_mutable(node.value):
            yield node.lineno, f"mutable module state: {ast.unparse(node)[:60]}"


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in MUTABLE_CALLS
    return isinstance(value, MUTABLE_DISPLAYS)


def _root(module: str) -> str:
    return module.partition(".")[0]


def test_there_is_a_domain() -> None:
    assert {path.partition("/")[0] for path in DOMAIN} == {"agent", "controlplane"}


@pytest.mark.parametrize("path", DOMAIN)
def test_domain_is_pure(path: str) -> None:
    assert impurities(parse(path)) == []


@pytest.mark.parametrize(
    "planted",
    [
        "async def decide(): ...",
        "import time",
        "from os import environ",
        "from pathlib import Path",
        "import logging.handlers",
        "def decide(): return datetime.now(UTC)",
        "def decide(): return random.random()",
        "SEEN = {}",
        "SEEN: list[str] = []",
        "SEEN = collections.defaultdict(list)",
        "def decide():\n    global seen",
    ],
)
def test_a_planted_impurity_is_found(planted: str) -> None:
    assert len(impurities(ast.parse(planted))) == 1


@pytest.mark.parametrize(
    "pure",
    [
        "LIMITS = (1, 2)",
        "NAMES = frozenset({'a'})",
        "SIGNS = MappingProxyType({'a': 1})",
        "def pick(rng: random.Random): return rng.random()",
        "import math",
        "from pathlib import PurePosixPath",
    ],
)
def test_what_is_pure_is_let_through(pure: str) -> None:
    assert impurities(ast.parse(pure)) == []
