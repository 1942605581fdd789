"""The lease: which of several controllers leads. The epoch is a fencing token: it rises with every new holder, and what
the holder of an older one writes is refused."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Held by `holder` until `expire_time`, by the database's clock."""

    name: str
    holder: str
    epoch: int
    expire_time: datetime
