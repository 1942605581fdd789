"""Inferences that a device has not ended: nothing frees them, since that would wait for the device, the whole process
with it."""

import itertools
import os
import sys
import threading
from typing import Any

_lock = threading.Lock()
_numbers = itertools.count()
_kept: dict[int, tuple[Any, ...]] = {}


def keep(*held: Any) -> int:
    """Hold on to an InferRequest and to the memory that the device may still read or write; for `let_go`."""
    with _lock:
        number = next(_numbers)
        _kept[number] = held
        return number


def let_go(number: int) -> None:
    """The inference has ended after all."""
    with _lock:
        del _kept[number]


def leave_process() -> None:
    """For the end of the process. Where something hangs it ends here, without the clean-up that would wait for it."""
    if _kept:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
