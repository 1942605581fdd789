"""docs/operating.md names the metrics that there are, all of them and no others."""

import re

import pytest

from tests.architecture.source import ROOT

PAGE = (ROOT / "docs/operating.md").read_text()
SOURCES = {"agent": ROOT / "agent/app/metrics.py", "controller": ROOT / "controlplane/metrics_endpoint.py"}
AGENT_CALL = re.compile(r'_(?:gauge|counter|histogram)\(\s*"([a-z_]+)"')
CONTROLLER_CALL = re.compile(r'(?:\{_PREFIX\}([a-z_]+)"|_states\("([a-z_]+)")')
UNLISTED = frozenset({"info"})
"""Says the version and nothing else."""


def documented(table: str) -> set[str]:
    """Names in the first column of the table that begins so, without what Prometheus appends to counters."""
    rows = PAGE.partition(table)[2].partition("\n\n")[0].splitlines()[2:]
    names = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    return {name.removesuffix("_total") for name in names}


@pytest.mark.parametrize(("part", "call"), [("agent", AGENT_CALL), ("controller", CONTROLLER_CALL)])
def test_every_metric_is_documented_and_every_documented_metric_exists(part: str, call: re.Pattern[str]) -> None:
    matches = call.finditer(SOURCES[part].read_text())
    found = {name for match in matches for name in match.groups() if name}
    assert found - UNLISTED == documented(f"| `lineside_{part}_...` |")
