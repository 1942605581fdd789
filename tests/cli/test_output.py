import io
from collections.abc import Iterator, Sequence

import pytest
from lineside.v1 import agent_pb2
from rich.console import Console

from controlplane.cli.output import Column, Printer
from controlplane.cli.output_format import OutputFormat
from controlplane.client.names import short

COLUMNS: Sequence[Column[agent_pb2.Agent]] = (
    Column(header="AGENT", cell=lambda agent: short(agent.name), whole=True),
    Column(header="HOST", cell=lambda agent: agent.host.hostname),
)


def printer(*, width: int) -> Printer:
    out, err = (Console(file=io.StringIO(), width=width, markup=False, highlight=False) for _ in range(2))
    return Printer(format=OutputFormat.TABLE, out=out, err=err)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 100])
def test_ids_are_never_cut_and_nothing_is_lost(width: int) -> None:
    agent = agent_pb2.Agent(name="agents/" + "a" * 63, host=agent_pb2.Host(hostname="h" * 150))
    to = printer(width=width)
    to.messages([agent], COLUMNS, none="")
    text = shown(to.out)
    assert "a" * 63 in text
    assert text.count("h") == 150


def test_a_long_list_comes_in_blocks() -> None:
    taken = 0

    def endless() -> Iterator[agent_pb2.Agent]:
        nonlocal taken
        while True:
            taken += 1
            if taken > 1000:
                raise KeyboardInterrupt
            yield agent_pb2.Agent(name=f"agents/a{taken}")

    to = printer(width=100)
    with pytest.raises(KeyboardInterrupt):
        to.messages(endless(), COLUMNS, none="")
    assert "a500" in shown(to.out)
