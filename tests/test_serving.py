"""What runs beside the listeners of a controller."""

import asyncio
import gc
import weakref

from controlplane.serving import collect_garbage

WAIT_SECONDS = 20.0


class Node:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


async def test_what_refers_to_itself_is_freed_soon_though_the_interpreter_no_longer_looks() -> None:
    kept, freed = Node(), asyncio.Event()
    collecting = asyncio.create_task(collect_garbage())
    try:
        await asyncio.sleep(0)
        assert not gc.isenabled()
        gone = weakref.ref(Node(), lambda _: freed.set())
        await asyncio.wait_for(freed.wait(), WAIT_SECONDS)
        assert gone() is None
        assert kept.itself is kept
    finally:
        collecting.cancel()
        gc.enable()
        gc.unfreeze()
