"""Who infers next: a bounded, fair queue before a model's InferRequests.

Rules kept here:
- Applications take turns: one that floods waits behind itself, and the next of another is served after at most one each
  of the others. Within an application the order is that of arrival.
- Nobody waits for long: a request whose deadline comes first, or that has waited its bound, is refused.
- Nobody fills the box: of the places in which requests run or wait, an application gets no more than are left free. So
  one alone may have half of them, and however many flood, there is room for one more.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from agent import limits
from agent.domain.errors import Reason, RequestError


class Places:
    """Requests that run or wait, of all models, by application. Thread-safe."""

    def __init__(self, places: int = limits.INFERENCE_PLACES) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._taken = 0
        self._by_application: dict[str, int] = {}

    def enter(self, application: str) -> None:
        """Take a place, to be left with `leave`. Raises RequestError (QUEUE_FULL) at once where there is none."""
        with self._lock:
            own = self._by_application.get(application, 0)
            if own >= self._places - self._taken:
                raise RequestError(
                    f"{own} requests of this application run or wait",
                    remedy="send fewer at once, or wait for answers",
                    reason=Reason.QUEUE_FULL,
                )
            self._taken += 1
            self._by_application[application] = own + 1

    def leave(self, application: str) -> None:
        with self._lock:
            self._taken -= 1
            left = self._by_application[application] - 1
            if left:
                self._by_application[application] = left
            else:
                del self._by_application[application]


class _Waiter:
    """One request that waits; its gate opens when it has the turn."""

    __slots__ = ("gate", "granted")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.granted = False


class Turns:
    """So many at a time. Thread-safe."""

    def __init__(self, at_once: int) -> None:
        self._lock = threading.Lock()
        self._free = at_once
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        """By application, the one whose turn is next first; never an empty queue."""

    @property
    def waiting(self) -> int:
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def take(self, application: str, wait_seconds: Callable[[], float]) -> bool:
        """Take a turn, to be given back with `give`; whether that was possible within what `wait_seconds` returns. It
        is asked once, and only where there is something to wait for."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            waiter = _Waiter()
            self._waiting.setdefault(application, deque()).append(waiter)
        if waiter.gate.acquire(timeout=max(0.0, wait_seconds())):
            return True
        with self._lock:
            if waiter.granted:  # in the moment in which the time was over
                return True
            queue = self._waiting[application]
            queue.remove(waiter)
            if not queue:
                del self._waiting[application]
        return False

    def give(self) -> None:
        """Give the turn back, to whoever is next."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            application, queue = next(iter(self._waiting.items()))
            waiter = queue.popleft()
            if queue:
                self._waiting.move_to_end(application)
            else:
                del self._waiting[application]
            waiter.granted = True
            waiter.gate.release()
