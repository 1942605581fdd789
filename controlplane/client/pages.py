"""Lists page by page."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from controlplane.client import limits
from controlplane.client.errors import InvalidInputError

T = TypeVar("T")
FetchPage = Callable[[int, str], tuple[Sequence[T], str]]
"""Takes the page size and the page token, returns the items and the token of the next page, empty on the last."""


def iterate(fetch: FetchPage[T], *, limit: int | None = None) -> Iterator[T]:
    """Yield the items of every page, at most `limit`; a page is fetched when its first item is wanted."""
    if limit is not None and limit < 1:
        raise InvalidInputError(f"{limit} is below 1", field="limit", remedy="ask for at least 1")
    left, token = limit, ""
    while True:
        items, token = fetch(limits.PAGE_SIZE if left is None else min(left, limits.PAGE_SIZE), token)
        yield from items if left is None else items[:left]
        if left is not None:
            left -= len(items)
        if not token or (left is not None and left <= 0):
            return
