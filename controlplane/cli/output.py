"""How an answer is shown: tables for people, JSON for programs. Answers go to stdout, everything else to stderr."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any, Generic, TypeVar

from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from controlplane.cli.document import document_of
from controlplane.cli.output_format import OutputFormat

M = TypeVar("M", bound=Message)
_WIDTH_PIPED = 100
"""Columns where there is no terminal to ask."""
_GAP = 2
"""Spaces between columns."""
_BROKEN_WIDTH = 4
"""Least width of a column whose text may be broken."""
_BLOCK_ROWS = 500
"""Rows of one table: a long list is shown as it comes, a table after another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[M]):
    """One column of a list."""

    header: str
    cell: Callable[[M], str]
    whole: bool = False
    """Never cut and never broken: an id that is copied from the screen."""
    number: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Printer:
    """Shows answers in one format."""

    format: OutputFormat
    out: Console
    err: Console

    @classmethod
    def of_process(cls, output_format: OutputFormat) -> "Printer":
        """Return a printer on this process's streams."""
        return cls(format=output_format, out=_console(sys.stdout), err=_console(sys.stderr))

    @property
    def json(self) -> bool:
        return self.format is OutputFormat.JSON

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def messages(self, messages: Iterable[M], columns: Sequence[Column[M]], *, none: str) -> int:
        """Show a list as it comes and return its length; `none` is said to people when it is empty."""
        count = 0
        if self.json:
            for count, message in enumerate(messages, start=1):
                self.write(("[" if count == 1 else ",") + "\n" + json.dumps(document_of(message)))
            self.write("\n]\n" if count else "[]\n")
            return count
        for block in _blocks(messages):
            count += len(block)
            rows = [[column.cell(message) for column in columns] for message in block]
            self.table(columns, rows)
        if not count:
            self.note(none)
        return count

    def document(self, value: Any) -> None:
        """Write one JSON object over several lines."""
        self.write(json.dumps(value, indent=2) + "\n")

    def compact(self, value: Any) -> None:
        """Write one JSON object on one line, for a stream of them."""
        self.write(json.dumps(value) + "\n")

    def line(self, text: str) -> None:
        """Write one line to stdout, alone and as it is."""
        self.write(text + "\n")

    def note(self, text: str) -> None:
        """Say something to the person that is no part of the answer."""
        self.err.print(plain(text), soft_wrap=True)

    def table(self, columns: Sequence[Column[Any]], rows: Sequence[Sequence[str]]) -> None:
        """Show rows; ids stay whole, everything else breaks where the screen is narrow."""
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
        needed = 0
        for place, column in enumerate(columns):
            width = max(len(column.header), *(len(row[place]) for row in rows)) if column.whole else _BROKEN_WIDTH
            needed += width + _GAP
            table.add_column(
                column.header,
                no_wrap=column.whole,
                min_width=width if column.whole else None,
                overflow="fold",
                justify="right" if column.number else "left",
            )
        for row in rows:
            table.add_row(*(plain(cell) for cell in row))
        # Rather a screen that scrolls sideways than an id that cannot be copied.
        (self.out if needed <= self.out.width else _console(self.out.file, width=needed)).print(table)

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Show the facts of one resource, one a line."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True, style="bold")
        grid.add_column(overflow="fold")
        for label, value in pairs:
            grid.add_row(label, plain(value or "-"))
        self.out.print(grid)

    def section(self, title: str, columns: Sequence[Column[M]], messages: Sequence[M]) -> None:
        """Show the parts of one resource under a title; nothing when there are none."""
        if messages:
            self.out.print()
            self.out.print(plain(title.upper()), style="bold")
            self.table(columns, [[column.cell(message) for column in columns] for message in messages])

    def write(self, text: str) -> None:
        """Write text to stdout as it is."""
        self.out.file.write(text)
        self.out.file.flush()


def plain(text: str) -> Text:
    """Return text that a terminal shows and does not obey: what a box reports may hold control characters."""
    return Text("".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text))


def _blocks(messages: Iterable[M]) -> Iterator[Sequence[M]]:
    """Yield the messages in blocks of a table's length."""
    iterator = iter(messages)
    while block := list(islice(iterator, _BLOCK_ROWS)):
        yield block


def _console(stream: IO[str], *, width: int | None = None) -> Console:
    if width is None and not stream.isatty() and "COLUMNS" not in os.environ:
        width = _WIDTH_PIPED
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
