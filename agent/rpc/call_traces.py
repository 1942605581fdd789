"""How calls to the controller become part of a trace, without knowing what records it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

Metadata = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTrace:
    """One call under way. `metadata` goes with it; `end` may be called early, and any number of times."""

    metadata: Metadata | None
    end: Callable[[], None]


class CallTraces(Protocol):
    """Thread-safe."""

    def call(self, name: str) -> AbstractContextManager[CallTrace]:
        """A call for the length of the block; an exception that leaves the block is part of the trace."""
        ...


class _NoTraces:
    """Costs a call nothing."""

    @contextmanager
    def call(self, name: str) -> Iterator[CallTrace]:
        yield _NO_TRACE


_NO_TRACE = CallTrace(metadata=None, end=lambda: None)
NO_TRACES: CallTraces = _NoTraces()
