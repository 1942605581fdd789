"""What slots have kept today, in memory and on disk.

    budget.json    {slot: {"day": ISO date, "spent_bytes": n, "spent_images": n, "labels": {label: n}}}

Rules kept here: the serving path may look at any time and never waits for the disk; what is spent is on disk when
`spend` returns; only one thread spends.
"""

import json
import threading
from datetime import date
from pathlib import Path
from types import MappingProxyType

from agent.app.ports import Clock
from agent.domain.day_budget import DayBudget, share_of_day
from agent.storage import durable


class DiskSampleBudgets:
    """One file in `folder`. Thread-safe."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._path = folder / "budget.json"
        self._clock = clock
        self._lock = threading.Lock()
        self._budgets = self._read()

    def today(self, slot: str) -> DayBudget:
        """The slot's budget as it stands now. What time has changed about it is remembered, and written when it is
        spent."""
        now, now_seconds = self._clock.now(), self._clock.monotonic()
        with self._lock:
            known = self._budgets.get(slot, DayBudget(day=now.date()))
            current = known.on(now.date(), now_seconds=now_seconds, passed=share_of_day(now))
            self._budgets[slot] = current
            return current

    def spend(self, slot: str, size_bytes: int, label: str) -> None:
        """Raises OSError, and has spent nothing then."""
        spent = self.today(slot).spend(size_bytes, label)
        with self._lock:
            budgets = {**self._budgets, slot: spent}
        self._write(budgets)
        with self._lock:
            self._budgets[slot] = spent

    def _write(self, budgets: dict[str, DayBudget]) -> None:
        content = {
            slot: {
                "day": budget.day.isoformat(),
                "spent_bytes": budget.spent_bytes,
                "spent_images": budget.spent_images,
                "labels": dict(budget.label_counts),
            }
            for slot, budget in budgets.items()
        }
        durable.replace_file(self._path, json.dumps(content, sort_keys=True).encode())

    def _read(self) -> dict[str, DayBudget]:
        """Where none was written yet, or it cannot be read, the day begins anew; adding says whether the disk works."""
        try:
            value = json.loads(self._path.read_bytes())
            return {
                slot: DayBudget(
                    day=date.fromisoformat(item["day"]),
                    spent_bytes=int(item["spent_bytes"]),
                    # Files of the first agents have no more than that.
                    spent_images=int(item.get("spent_images", 0)),
                    label_counts=MappingProxyType({key: int(count) for key, count in item.get("labels", {}).items()}),
                )
                for slot, item in value.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
