"""Lines of real processes. A line of its own for a test that kills; one for the module where a test only looks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.line import Line


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """A line whose controller serves; no agent yet."""
    line = Line(tmp_path)
    try:
        line.start_controller()
        yield line
    finally:
        line.close()
