"""How many requests are being answered, so that whatever is not urgent can wait until none is."""

import threading
from typing import Self


class Traffic:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Guards what follows; a condition alone, which requests would notify though nobody waits, costs them more."""
        self._quiet = threading.Condition(self._lock)
        self._waiting = 0
        self._requests = 0

    def request(self) -> Self:
        """A request is being answered, `with` this."""
        return self

    def __enter__(self) -> None:
        with self._lock:
            self._requests += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._requests -= 1
            if self._waiting and self._requests == 0:
                self._quiet.notify_all()

    @property
    def quiet(self) -> bool:
        """Nobody waits for an answer now."""
        return self._requests == 0

    @property
    def requests(self) -> int:
        """Requests that are being answered or wait for a free InferRequest now."""
        return self._requests

    def wait_quiet(self, seconds: float) -> bool:
        """Block until nobody waits for an answer, at most `seconds`; whether that came."""
        with self._lock:
            self._waiting += 1
            try:
                return self._quiet.wait_for(lambda: self._requests == 0, seconds)
            finally:
                self._waiting -= 1
