"""Prefetch: prepared beside what serves, swapped in without a fetch or a compile, and never in the way."""

from dataclasses import replace

from agent import limits
from agent.domain.errors import Reason
from agent.domain.slot import CandidateVersion, DesiredSlot, SlotState
from tests.support.agent_core import Core, state, wanted


def candidate(version: int) -> CandidateVersion:
    slot = wanted(version)
    return CandidateVersion(version=version, artifact=slot.artifact, signature=slot.signature)


def with_prefetch(slot: DesiredSlot, version: int) -> DesiredSlot:
    return replace(slot, prefetch=candidate(version))


def folder(version: int) -> str:
    return wanted(version).artifact.digest


async def prefetched(core: Core) -> Core:
    """A core that serves 1 and has 2 prepared."""
    await core.start(sync=False)
    await core.executor.desire(state(1, with_prefetch(wanted(1), 2)))
    await core.clock.run_until(lambda: core.slot().prefetched_version == 2)
    return core


async def test_a_prefetched_version_is_prepared_and_not_served(core: Core) -> None:
    await prefetched(core)
    assert core.serving.history == [("cells", 1)]
    assert core.runtime.measured == [folder(1), folder(2)], "what serves comes first"
    slot = core.slot()
    assert (slot.state, slot.serving_version, slot.target_version) == (SlotState.SERVING, 1, 1)
    await core.clock.advance(600)
    assert core.cache.complete == {folder(1), folder(2)}, "kept from pruning"


async def test_the_swap_to_a_prefetched_version_fetches_and_measures_nothing(core: Core) -> None:
    await prefetched(core)
    core.controller.away()
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    assert core.cache.fetches == 2
    assert core.runtime.measured == [folder(1), folder(2)]
    assert core.slot().prefetched_version == 0


async def test_a_prefetch_survives_a_kill(core: Core) -> None:
    core = await (await prefetched(core)).die()
    core.controller.away()
    await core.start(sync=False)
    await core.clock.run_until(lambda: core.slot().prefetched_version == 2)
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    assert core.runtime.measured == [folder(1), folder(2)]
    await core.stop()


async def test_a_prefetch_whose_bytes_are_gone_after_a_restart_is_fetched_again(core: Core) -> None:
    core = await (await prefetched(core)).die()
    core.cache.complete.discard(folder(2))
    await core.start(sync=False)
    assert core.slot().prefetched_version == 0
    await core.clock.run_until(lambda: core.slot().prefetched_version == 2)
    await core.stop()


async def test_a_prefetch_that_fails_says_so_and_is_tried_again_ever_more_rarely(core: Core) -> None:
    core.runtime.fail_measure.add(folder(2))
    await core.start(sync=False)
    await core.executor.desire(state(1, with_prefetch(wanted(1), 2)))
    await core.clock.run_until(lambda: core.slot().prefetch_failure != "")
    assert Reason.COMPILE_CRASHED in core.slot().prefetch_failure
    assert (core.slot().state, core.slot().failure_reason) == (SlotState.SERVING, "")
    await core.clock.advance(24 * 3600)
    tries = core.runtime.measured.count(folder(2))
    assert 24 < tries < 300
    assert core.serving.history == [("cells", 1)]
    core.runtime.fail_measure.clear()
    await core.clock.run_until(lambda: core.slot().prefetched_version == 2)
    assert core.slot().prefetch_failure == ""


async def test_a_failed_prefetch_is_a_failure_of_the_version_only_once_it_is_offered(core: Core) -> None:
    core.runtime.fail_measure.add(folder(2))
    await core.start(sync=False)
    await core.executor.desire(state(1, with_prefetch(wanted(1), 2)))
    await core.clock.run_until(lambda: core.slot().prefetch_failure != "")
    assert core.state_file.saved.failures == ()
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.slot().state is SlotState.FAILED)
    assert core.serving.versions() == {"cells": 1}


async def test_another_desired_state_does_not_hurry_a_prefetch_that_failed(core: Core) -> None:
    core.runtime.fail_measure.add(folder(2))
    await core.start(sync=False)
    await core.executor.desire(state(1, with_prefetch(wanted(1), 2)))
    await core.clock.run_until(lambda: core.slot().prefetch_failure != "")
    tries = core.runtime.measured.count(folder(2))
    for generation in range(2, 30):
        await core.executor.desire(state(generation, with_prefetch(wanted(1), 2)))
        await core.clock.advance(0.01)
    assert core.runtime.measured.count(folder(2)) <= tries + 1


async def test_a_controller_out_of_reach_is_no_failure_of_a_prefetch(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.controller.away()
    await core.executor.desire(state(2, with_prefetch(wanted(1), 2)))
    await core.clock.advance(600)
    assert core.slot().prefetch_failure == ""
    core.controller.back()
    core.executor.hurry()
    await core.clock.run_until(lambda: core.slot().prefetched_version == 2, seconds_max=1)


async def test_serving_comes_before_a_prefetch_under_way(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.cache.hang = True
    await core.executor.desire(state(2, with_prefetch(wanted(1), 2)))
    await core.clock.run_until(lambda: core.cache.fetches == 2)
    core.cache.hang = False
    await core.executor.desire(state(3, with_prefetch(wanted(3), 2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 3})
    assert core.runtime.measured[:2] == [folder(1), folder(3)]
    await core.clock.run_until(lambda: core.slot().prefetched_version == 2)


async def test_a_prefetch_under_way_that_becomes_the_version_to_serve_goes_on(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.runtime.hang_measure = True
    await core.executor.desire(state(2, with_prefetch(wanted(1), 2)))
    await core.clock.run_until(lambda: folder(2) in core.runtime.measured)
    await core.executor.desire(state(3, wanted(2)))
    await core.clock.advance(60)
    assert core.runtime.cancelled == 0
    assert core.runtime.measured.count(folder(2)) == 1


async def test_a_trial_ends_while_a_prefetch_goes_on(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    await core.executor.desire(state(2, wanted(3)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 3})
    core.cache.hang = True
    await core.executor.desire(state(3, with_prefetch(wanted(3), 2)))
    await core.clock.advance(limits.TRIAL_SECONDS + 1)
    assert core.state_file.saved.trials == ()


async def test_a_prefetch_without_room_waits_and_leaves_what_serves(core: Core) -> None:
    core.cache.room = 1
    await core.start(sync=False)
    await core.executor.desire(state(1, with_prefetch(wanted(1), 2)))
    await core.clock.run_until(lambda: Reason.DISK_FULL in core.slot().prefetch_failure)
    await core.clock.advance(3600)
    assert core.serving.history == [("cells", 1)]
    assert core.slot().state is SlotState.SERVING
    core.cache.room = 2
    await core.clock.run_until(lambda: core.slot().prefetched_version == 2)


async def test_a_prefetch_makes_room_for_a_version_to_serve(core: Core) -> None:
    await prefetched(core)
    core.cache.room = 2
    await core.executor.desire(state(2, with_prefetch(wanted(3), 2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 3}, seconds_max=10)
    assert core.slot().prefetched_version == 0


async def test_a_slots_downloads_are_paced(core: Core) -> None:
    await core.start(sync=False)
    slot = replace(with_prefetch(wanted(1), 2), fetch_bytes_per_second_max=5000)
    await core.executor.desire(state(1, slot))
    await core.clock.run_until(lambda: core.slot().prefetched_version == 2)
    assert core.cache.rates == [5000, 5000]
