"""Files and functions stay short enough to be read at one go, and modules are named for what they hold."""

import pytest

from tests.architecture.source import ROOT, functions, parse, python_files

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
NAMELESS = frozenset({"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"})
"""Names that say nothing of what a module holds."""

FILES = python_files()


@pytest.mark.parametrize("path", FILES)
def test_file_is_short(path: str) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", [path for path in FILES if not path.startswith("migrations/versions/")])
def test_functions_are_short(path: str) -> None:
    """Migrations are let off: each is one list of statements, written once and run in order."""
    lengths = {
        f"{function.name}, line {function.lineno}": (function.end_lineno or 0) - function.lineno + 1
        for function in functions(parse(path))
    }
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES_MAX} == {}


def test_modules_are_named_for_what_they_hold() -> None:
    assert [path for path in FILES if NAMELESS & set(path.removesuffix(".py").split("/"))] == []
