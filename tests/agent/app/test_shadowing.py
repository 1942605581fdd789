"""Shadow runs as the executor drives them: begun, ended, survived and given up."""

from dataclasses import replace

import numpy as np
import pytest

from agent import limits
from agent.domain.errors import Reason
from agent.domain.slot import CandidateVersion, DesiredSlot, ObservedShadow, ShadowRun, ShadowState, SlotState
from tests.agent.app.test_trials import next_load
from tests.agent.storage.test_result_log import result
from tests.support.agent_core import Core, state, wanted
from tests.support.serving import SIGNATURE


def shadowed(version: int, candidate: int, *, offer: int = 0, comparisons_max: int = 5) -> DesiredSlot:
    other = wanted(candidate)
    shadow = ShadowRun(
        candidate=CandidateVersion(version=candidate, artifact=other.artifact, signature=SIGNATURE),
        comparisons_max=comparisons_max,
    )
    return replace(wanted(version, offer=offer), signature=SIGNATURE, shadow=shadow)


def folder(version: int) -> str:
    return wanted(version).artifact.digest


def shadow(core: Core) -> ObservedShadow:
    found = core.slot().shadow
    assert found is not None
    return found


async def reach(core: Core, state: ShadowState) -> None:
    await core.clock.run_until(lambda: core.slot().shadow is not None and shadow(core).state is state)


async def running(core: Core, slot: DesiredSlot | None = None) -> Core:
    """A core that serves 1 and runs 2 in shadow."""
    await core.start(sync=False)
    await core.executor.desire(state(1, slot or shadowed(1, 2)))
    await reach(core, ShadowState.RUNNING)
    return core


async def test_a_candidate_is_loaded_beside_what_serves(core: Core) -> None:
    await running(core)
    assert core.serving.history == [("cells", 1)]
    assert core.runtime.loaded == [folder(1), folder(2)]
    assert (shadow(core).candidate_version, shadow(core).offer) == (2, 0)
    await core.executor.desire(state(2, replace(shadowed(1, 2), shadow=None)))
    await core.clock.run_until(lambda: core.cache.complete == {folder(1)})
    assert core.slot().shadow is None
    assert core.state_file.saved.shadows == ()


async def test_a_run_goes_on_after_a_kill_and_under_another_offer(core: Core) -> None:
    core = await (await running(core)).die()
    core.controller.away()
    await core.start(sync=False)
    await reach(core, ShadowState.RUNNING)
    assert core.runtime.measured == [folder(1), folder(2)], "nothing is compiled again"
    loaded = len(core.runtime.loaded)
    await core.executor.desire(state(2, shadowed(1, 2, offer=1)))
    await core.clock.advance(5)
    assert (shadow(core).state, shadow(core).offer) == (ShadowState.RUNNING, 1)
    assert len(core.runtime.loaded) == loaded
    await core.stop()


async def test_a_complete_run_stays_complete_over_a_restart(core: Core) -> None:
    await running(core, shadowed(1, 2, comparisons_max=1))
    while shadow(core).state is ShadowState.RUNNING:
        core.shadows.offer({"x": np.zeros((1, 3), np.float32)}, [result()])
        await core.clock.advance(0.01)
    assert (shadow(core).state, shadow(core).compared) == (ShadowState.COMPLETE, 1)
    await core.clock.run_until(lambda: core.state_file.saved.shadows[0].state is ShadowState.COMPLETE)
    core = await core.die()
    await core.start(sync=False)
    await core.clock.advance(60)
    assert (shadow(core).state, shadow(core).compared) == (ShadowState.COMPLETE, 1)
    assert core.runtime.loaded.count(folder(2)) == 1
    await core.stop()


@pytest.mark.parametrize("what", ["measure", "load"])
async def test_a_candidate_that_cannot_be_prepared_has_failed_until_it_is_offered_again(core: Core, what: str) -> None:
    broken = core.runtime.fail_measure if what == "measure" else core.runtime.fail_load
    broken.add(folder(2))
    await core.start(sync=False)
    await core.executor.desire(state(1, shadowed(1, 2)))
    await reach(core, ShadowState.FAILED)
    assert (Reason.COMPILE_CRASHED if what == "measure" else Reason.LOAD_FAILED) in shadow(core).message
    assert (core.slot().state, core.serving.versions()) == (SlotState.SERVING, {"cells": 1})
    tries = len(core.runtime.measured)
    await core.clock.advance(3600)
    assert len(core.runtime.measured) == tries
    broken.clear()
    await core.executor.desire(state(2, shadowed(1, 2, offer=1)))
    await reach(core, ShadowState.RUNNING)


async def test_a_candidate_without_room_has_failed(core: Core) -> None:
    core.cache.room = 1
    await core.start(sync=False)
    await core.executor.desire(state(1, shadowed(1, 2)))
    await reach(core, ShadowState.FAILED)
    assert Reason.DISK_FULL in shadow(core).message
    assert core.serving.history == [("cells", 1)]


async def test_a_controller_out_of_reach_fails_no_run(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.controller.away()
    await core.executor.desire(state(2, replace(shadowed(1, 2), signature=wanted(1).signature)))
    await core.clock.advance(3600)
    assert shadow(core).state is ShadowState.PREPARING


async def test_a_candidate_whose_load_kills_the_process_is_given_up(core: Core) -> None:
    core.runtime.hang_load = {folder(2)}
    await core.start(sync=False)
    await core.executor.desire(state(1, shadowed(1, 2)))
    for _ in range(limits.LOAD_CRASHES_MAX):
        await next_load(core, 2)
        core = await core.die()
        await core.start(sync=False)
        assert core.serving.versions() == {"cells": 1}
    await core.clock.advance(600)
    assert core.runtime.loaded.count(folder(2)) == limits.LOAD_CRASHES_MAX
    assert shadow(core).state is ShadowState.FAILED
    assert Reason.LOAD_CRASHED in shadow(core).message
    assert core.slot().state is SlotState.SERVING
    await core.stop()


async def test_a_candidate_that_kills_the_process_as_it_runs_is_given_up_and_nothing_else(core: Core) -> None:
    await running(core)
    for _ in range(limits.TRIAL_CRASHES_MAX - 1):
        core = await core.die()
        await core.start(sync=False)
        await reach(core, ShadowState.RUNNING)
    core = await core.die()
    await core.start(sync=False)
    await core.clock.advance(600)
    assert shadow(core).state is ShadowState.FAILED
    assert Reason.SERVE_CRASHED in shadow(core).message
    assert (core.slot().serving_version, core.slot().state) == (1, SlotState.SERVING)
    await core.stop()


async def test_regular_stops_blame_no_candidate(core: Core) -> None:
    await running(core)
    for _ in range(2 * limits.TRIAL_CRASHES_MAX):
        await core.stop()
        core = await core.die()
        await core.start(sync=False)
        await reach(core, ShadowState.RUNNING)
    await core.stop()


async def test_no_run_begins_before_a_new_version_has_proven_itself(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    await core.executor.desire(state(2, shadowed(3, 2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 3})
    await core.clock.advance(limits.TRIAL_SECONDS / 2)
    assert core.runtime.loaded.count(folder(2)) == 0
    await core.clock.run_until(lambda: shadow(core).state is ShadowState.RUNNING, seconds_max=limits.TRIAL_SECONDS)


async def test_a_candidate_that_is_to_serve_is_swapped_in_without_a_compile(core: Core) -> None:
    await running(core)
    await core.executor.desire(state(2, replace(wanted(2), signature=SIGNATURE)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    assert core.runtime.measured == [folder(1), folder(2)]
    assert core.slot().shadow is None
