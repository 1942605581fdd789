"""ARCHITECTURE.md's invariants are held by what they name.

An invariant is a paragraph or list item that begins with `I<number>.`, and names in backquotes at least one test
(`tests/....py::test_name` or a whole `tests/....py`) or one import contract by its name.
"""

import re
import tomllib

import pytest

from tests.architecture.source import ROOT, functions, parse

DOCUMENT = ROOT / "ARCHITECTURE.md"
INVARIANT = re.compile(r"^[-*\s]*\**(?P<number>I\d+)\.\**\s")


def invariants(text: str) -> list[tuple[str, str]]:
    """(number, whole text) of each invariant, in order."""
    found: list[tuple[str, str]] = []
    open_item = False
    for line in text.splitlines():
        if match := INVARIANT.match(line):
            found.append((match["number"], line))
            open_item = True
        elif not line.strip() or line.startswith("#"):
            open_item = False
        elif open_item:
            number, body = found[-1]
            found[-1] = (number, f"{body} {line.strip()}")
    return found


def contracts() -> set[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}


def holds(name: str) -> bool:
    """Whether `name` is a test, or a file of tests, that exists."""
    path, _, test = name.partition("::")
    if not (ROOT / path).is_file():
        return False
    wanted = test.rpartition("::")[2].partition("[")[0]
    return not wanted or wanted in {function.name for function in functions(parse(path))}


INVARIANTS = invariants(DOCUMENT.read_text()) if DOCUMENT.exists() else []


def test_invariants_are_numbered_in_order() -> None:
    assert [number for number, _ in INVARIANTS] == [f"I{number}" for number in range(1, len(INVARIANTS) + 1)]
    assert INVARIANTS, f"{DOCUMENT.name} states no invariant"


@pytest.mark.parametrize(("number", "text"), INVARIANTS)
def test_invariant_names_what_holds_it(number: str, text: str) -> None:
    quoted = re.findall(r"`([^`]+)`", text)
    tests = [name for name in quoted if name.startswith("tests/")]
    assert [name for name in tests if not holds(name)] == [], f"{number} names tests that do not exist"
    assert tests or contracts() & set(quoted), f"{number} names neither a test nor an import contract"


def test_a_name_of_no_test_is_found_out() -> None:
    assert holds("tests/architecture/test_invariants.py::test_a_name_of_no_test_is_found_out")
    assert not holds("tests/architecture/test_invariants.py::test_of_no_such_name")
    assert not holds("tests/architecture/test_of_no_such_file.py")
