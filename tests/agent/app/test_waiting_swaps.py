"""A swap that waits for a lot: it holds nothing else up, and ends when it should."""

from dataclasses import replace

from agent.app.ports import SavedState
from agent.domain.device import RuntimePolicy
from agent.domain.slot import DesiredSlot, SlotState
from tests.support.agent_core import Core, state, wanted

WAIT_SECONDS = 120.0
POLICY = RuntimePolicy(swap_wait_seconds=WAIT_SECONDS)


def patient(version: int, *, offer: int = 0) -> DesiredSlot:
    return replace(wanted(version, offer=offer), runtime_policy=POLICY)


async def start_waiting(core: Core) -> None:
    """Version 1 serves in lots, and version 2 waits for the next."""
    core.serving.with_lots.add("cells")
    await core.start(sync=False)
    await core.executor.desire(state(1, patient(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    await core.executor.desire(state(2, patient(2)))
    await core.clock.run_until(lambda: "cells" in core.serving.staged, seconds_max=5)


async def test_other_slots_go_on_while_a_swap_waits(core: Core) -> None:
    await start_waiting(core)
    await core.executor.desire(state(3, patient(2), wanted(7, slot="edges")))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1, "edges": 7}, seconds_max=5)
    await core.executor.desire(state(4, patient(2), wanted(8, slot="edges")))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1, "edges": 8}, seconds_max=5)
    await core.executor.desire(state(5, patient(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1}, seconds_max=5)
    assert core.slot().state is SlotState.PREPARING
    assert core.runtime.loaded.count(patient(2).artifact.digest) == 1, "it is loaded once and waits"
    assert patient(1).artifact.digest in core.cache.complete, "what serves keeps its bytes"


async def test_a_lot_ends_the_wait_and_the_slot_is_reported_and_saved(core: Core) -> None:
    await start_waiting(core)
    core.serving.begin_lot("cells")
    await core.clock.run_until(lambda: core.slot().state is SlotState.SERVING, seconds_max=1)
    assert core.slot().serving_version == 2
    await core.clock.run_until(lambda: core.state_file.saved.serving[0].desired == patient(2), seconds_max=1)
    assert core.serving.history == [("cells", 1), ("cells", 2)]


async def test_a_lot_ends_the_wait_while_the_executor_is_busy_with_another_slot(core: Core) -> None:
    await start_waiting(core)
    core.cache.hang = True
    await core.executor.desire(state(3, patient(2), wanted(7, slot="edges")))
    await core.clock.run_until(lambda: core.cache.fetches == 3, seconds_max=5)
    core.serving.begin_lot("cells")
    await core.clock.run_until(lambda: core.slot().serving_version == 2, seconds_max=1)


async def test_the_bound_ends_the_wait(core: Core) -> None:
    await start_waiting(core)
    await core.clock.advance(WAIT_SECONDS - 5)
    assert core.serving.versions() == {"cells": 1}
    await core.clock.advance(6)
    assert core.serving.versions() == {"cells": 2}
    assert core.slot().state is SlotState.SERVING


async def test_what_is_no_longer_wanted_is_withdrawn_and_never_serves(core: Core) -> None:
    await start_waiting(core)
    await core.executor.desire(state(3, patient(1)))
    await core.clock.run_until(lambda: core.slot().state is SlotState.SERVING, seconds_max=1)
    await core.clock.advance(2 * WAIT_SECONDS)
    assert core.serving.withdrawn == [("cells", 2)]
    assert core.serving.history == [("cells", 1)]
    assert core.state_file.saved.trials == ()


async def test_a_swap_that_is_wanted_otherwise_waits_on_with_the_newer(core: Core) -> None:
    await start_waiting(core)
    await core.executor.desire(state(3, patient(2, offer=1)))
    await core.clock.advance(5)
    assert core.serving.withdrawn == [], "the same work under another offer"
    await core.executor.desire(state(4, patient(3)))
    await core.clock.run_until(lambda: "cells" in core.serving.staged, seconds_max=5)
    core.serving.begin_lot("cells")
    await core.clock.run_until(lambda: core.slot().serving_version == 3, seconds_max=1)
    assert core.serving.withdrawn == [("cells", 2)]
    assert core.serving.history == [("cells", 1), ("cells", 3)]


async def test_a_slot_that_is_no_longer_wanted_is_unloaded_with_what_waits(core: Core) -> None:
    await start_waiting(core)
    await core.executor.desire(state(3))
    await core.clock.run_until(lambda: core.serving.versions() == {}, seconds_max=5)
    await core.clock.advance(2 * WAIT_SECONDS)
    assert core.serving.versions() == {}


async def test_a_process_that_ends_in_the_wait_comes_back_with_what_served(core: Core) -> None:
    await start_waiting(core)
    saved: SavedState = core.state_file.saved
    assert [record.desired.version for record in saved.serving] == [1]
    after = await core.die()
    after.serving.with_lots.add("cells")
    await after.start(sync=False)
    assert after.serving.versions() == {"cells": 1}
    await after.clock.run_until(lambda: "cells" in after.serving.staged, seconds_max=5)
    await after.stop()
