"""Where a swap may happen: at once, or where an application that names its lots begins the next.

Rules kept here:
- A swap that waits is an entry here and holds nothing else up: whatever other slots need goes on meanwhile.
- It ends when a new lot has brought the version in, when the policy's wait is over, or when the version is no longer
  wanted; what was brought in counts as swapped, whatever is wanted since.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog

from agent.app.fallback import FallbackModel
from agent.app.ports import Clock, ServingPath
from agent.domain.reconcile import runs_alike
from agent.domain.slot import DesiredSlot

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True, eq=False)
class WaitingSwap:
    """A version that is loaded and waits for a lot."""

    wanted: DesiredSlot
    loaded: FallbackModel
    until_seconds: float
    """On the monotonic clock."""
    lot_began: bool = False
    """Set by the thread of the request that brought it in."""


class WaitingSwaps:
    """One per agent, in its loop; at most one swap a slot."""

    def __init__(self, *, serving: ServingPath, clock: Clock, on_lot: Callable[[], None]) -> None:
        """`on_lot` is called, from any thread, when a lot has brought a version in."""
        self._serving = serving
        self._clock = clock
        self._on_lot = on_lot
        self._waiting: dict[str, WaitingSwap] = {}

    @property
    def slots(self) -> frozenset[str]:
        return frozenset(self._waiting)

    def wait_for_lot(self, wanted: DesiredSlot, loaded: FallbackModel) -> bool:
        """Let the swap wait; False where it need not, since no lots are known or the policy waits for none."""
        seconds = wanted.runtime_policy.swap_wait_seconds
        if not seconds:
            return False
        swap = WaitingSwap(wanted=wanted, loaded=loaded, until_seconds=self._clock.monotonic() + seconds)

        def tell() -> None:
            swap.lot_began = True
            self._on_lot()

        if not self._serving.stage(wanted, loaded, wait_seconds=seconds, on_swap=tell):
            return False
        self._waiting[wanted.slot] = swap
        _log.info("swap_waits", slot=wanted.slot, version=wanted.version, seconds=seconds)
        return True

    def next_seconds(self) -> float:
        """Seconds until the next wait is over; infinite where none goes on."""
        now_seconds = self._clock.monotonic()
        ends = [each.until_seconds for each in self._waiting.values()]
        return max(0.0, min(ends, default=float("inf")) - now_seconds)

    def take_due(self) -> tuple[WaitingSwap, ...]:
        """Those that a lot has brought in, or that have waited as long as they may; they wait no longer."""
        now_seconds = self._clock.monotonic()
        due = tuple(each for each in self._waiting.values() if each.lot_began or each.until_seconds <= now_seconds)
        for each in due:
            del self._waiting[each.wanted.slot]
            _log.info("swap_waited", slot=each.wanted.slot, version=each.wanted.version, lot_began=each.lot_began)
        return due

    def withdraw_unwanted(self, slots: Collection[DesiredSlot]) -> tuple[DesiredSlot, ...]:
        """Free what waits and is none of `slots`; which those were. One that a lot brings in at this moment stays, to
        be taken as due."""
        wanted = {slot.slot: slot for slot in slots}
        withdrawn = []
        for each in tuple(self._waiting.values()):
            now_wanted = wanted.get(each.wanted.slot)
            if now_wanted is not None and runs_alike(now_wanted, each.wanted):
                continue
            if self._serving.withdraw(each.wanted.slot, each.loaded):
                del self._waiting[each.wanted.slot]
                withdrawn.append(each.wanted)
                _log.info("swap_withdrawn", slot=each.wanted.slot, version=each.wanted.version)
        return tuple(withdrawn)
