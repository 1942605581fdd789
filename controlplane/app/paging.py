"""Pages: clamped sizes and opaque tokens (AIP-158)."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError, Reason

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items of one page; `next_token` is empty on the last."""

    items: Sequence[T]
    next_token: str = ""


def page_of(items: Sequence[T], size: int, token_of: Callable[[T], str]) -> Page[T]:
    """Return the page of up to `size + 1` items that were asked for: the item too many says that a page follows."""
    if len(items) <= size:
        return Page(items)
    return Page(items[:size], token_of(items[size - 1]))


def clamp_page_size(requested: int) -> int:
    """0 means the default; above the largest means the largest; below 0 raises FieldInvalidError."""
    if requested < 0:
        raise FieldInvalidError(f"{requested} is negative", field="page_size", remedy="leave it 0 for the default")
    return min(requested or limits.PAGE_SIZE_DEFAULT, limits.PAGE_SIZE_MAX)


def encode_page_token(*key: str | int) -> str:
    """Return an opaque token for the key of the last item of a page."""
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_page_token(token: str, *types: type[str] | type[int]) -> tuple[str | int, ...] | None:
    """Return the key of a token, None for an empty token; raise FieldInvalidError for any other text."""
    if not token:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(types) or not all(map(_can_be_stored, key)):
        raise _no_token()
    return tuple(key)


def decode_token_time(text: str) -> datetime:
    """Return the time in a token's key, aware; raise FieldInvalidError for a text that is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise _no_token() from error
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _no_token() -> FieldInvalidError:
    return FieldInvalidError(
        "not a token of this list",
        field="page_token",
        remedy="pass next_page_token of the page before, unchanged",
        reason=Reason.PAGE_TOKEN_INVALID,
    )


def _can_be_stored(part: str | int) -> bool:
    """Whether a database could hold it: 64 bits, or text that is Unicode and without NUL."""
    if isinstance(part, int):
        return -(1 << 63) <= part < 1 << 63
    return "\0" not in part and not any("\ud800" <= character <= "\udfff" for character in part)
