"""The project's own source files, as git lists them."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = "protos/gen/"


def tracked() -> list[str]:
    """Files in the working tree that git tracks or would, by path; those deleted but not yet committed are left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in listed.splitlines() if (ROOT / path).is_file()]


def python_files(*roots: str) -> list[str]:
    """Hand-written Python files, below `roots` where given."""
    return [
        path
        for path in tracked()
        if path.endswith(".py") and not path.startswith(GENERATED) and (not roots or path.startswith(roots))
    ]


def parse(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), filename=path)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
