"""The machine's clock and randomness: the real Clock and IdSource."""

import base64
import secrets
import time
import uuid
from datetime import UTC, datetime


class SystemClock:
    """The machine's clock; passes the contract of ports.Clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class SystemIds:
    """Identities from the machine's randomness; passes the contract of ports.IdSource."""

    def __init__(self) -> None:
        self._last_tick = 0

    def uid(self) -> str:
        """A UUID of version 7 (RFC 9562, method 3): 60 bits of time in ticks of 1/4096 ms, then 62 random bits.

        Each is above all that this object gave before: what one transaction writes down sorts as it was decided.
        """
        tick = max(time.time_ns() * 4096 // 1_000_000, self._last_tick + 1)
        self._last_tick = tick
        value = tick >> 12 << 80 | 0x7 << 76 | (tick & 0xFFF) << 64 | 0b10 << 62 | secrets.randbits(62)
        return str(uuid.UUID(int=value))

    def short_id(self) -> str:
        """60 random bits in lower-case base 32: letters and digits, so always a resource id."""
        return base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]

    def secret(self) -> str:
        return secrets.token_urlsafe(32)
