"""Where a swap may happen: at once, or where an application that names its lots begins the next."""

import asyncio

import structlog

from agent.app.ports import Clock, LoadedModel, ServingPath
from agent.domain.slot import DesiredSlot

_log = structlog.get_logger()


async def wait_for_lot(serving: ServingPath, wanted: DesiredSlot, loaded: LoadedModel, clock: Clock) -> None:
    """Return when the slot may be swapped, or a new lot has done so: soon where no lots are known or the policy waits
    for none, and at the end of what it waits."""
    seconds = wanted.runtime_policy.swap_wait_seconds
    if not seconds:
        return
    loop, swapped = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(swapped.set)

    if not serving.stage(wanted, loaded, wait_seconds=seconds, on_swap=tell):
        return
    waits = [asyncio.create_task(swapped.wait()), asyncio.create_task(clock.sleep(seconds))]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
    _log.info("swap_waited", slot=wanted.slot, version=wanted.version, lot_began=swapped.is_set())
