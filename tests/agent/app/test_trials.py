"""Processes that die of a version: it is given up within a bound, and what is good serves."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from agent import limits
from agent.app.ports import Trial
from agent.domain.errors import Reason
from agent.domain.slot import SlotState
from tests.support.agent_core import Core, state, wanted

CRASHING_AGENT = Path(__file__).parents[2] / "support" / "crashing_agent.py"


def folder(version: int) -> str:
    return wanted(version).artifact.digest


def loads(core: Core, version: int) -> int:
    return core.runtime.loaded.count(folder(version))


async def next_load(core: Core, version: int) -> None:
    """Return when one more load of it has begun."""
    before = loads(core, version)
    await core.clock.run_until(lambda: loads(core, version) > before)


async def started(core: Core, *versions: int) -> Core:
    """A core that took up these versions, one after another, and serves the last."""
    await core.start(sync=False)
    for version in versions:
        await take_up(core, version)
    return core


async def take_up(core: Core, version: int) -> None:
    await core.executor.desire(state(version, wanted(version)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": version})


async def test_a_version_that_kills_the_process_as_it_loads_is_given_up(core: Core) -> None:
    await started(core, 1)
    await core.clock.advance(limits.TRIAL_SECONDS)
    core.runtime.hang_load = {folder(2)}
    await core.executor.desire(state(2, wanted(2)))
    for _ in range(limits.LOAD_CRASHES_MAX - 1):
        await next_load(core, 2)
        core = await core.die()
        await core.start(sync=False)
        assert core.serving.versions() == {"cells": 1}
    await core.clock.run_until(lambda: loads(core, 2) == limits.LOAD_CRASHES_MAX)
    core = await core.die()
    await core.start(sync=False)
    await core.clock.advance(600)
    assert loads(core, 2) == limits.LOAD_CRASHES_MAX, "not tried again"
    slot = core.slot()
    assert (slot.state, slot.serving_version, slot.target_version) == (SlotState.FAILED, 1, 2)
    assert slot.failure_reason == Reason.LOAD_CRASHED
    assert "offer this one again" in slot.failure_message
    assert folder(1) in core.cache.complete
    core.runtime.hang_load.clear()
    await core.executor.desire(state(3, wanted(2, offer=1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    await core.stop()


async def test_one_kill_in_the_middle_of_a_load_fails_nothing(core: Core) -> None:
    await core.start(sync=False)
    core.runtime.hang_load = {folder(1)}
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: loads(core, 1) == 1)
    core = await core.die()
    core.runtime.hang_load.clear()
    await core.start(sync=False)
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    assert core.state_file.saved.trials == ()
    await core.stop()


async def test_regular_stops_in_the_middle_of_a_load_are_nobodys_fault(core: Core) -> None:
    core.runtime.hang_load = {folder(1)}
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: loads(core, 1) == 1)
    assert [trial.loads for trial in core.state_file.saved.trials] == [1]
    await core.stop()
    assert core.state_file.saved.trials == ()


async def test_last_known_good_that_kills_the_process_is_given_up_and_the_next_version_serves(core: Core) -> None:
    await started(core, 1)
    core.runtime.hang_load = {folder(1)}
    for _ in range(limits.LOAD_CRASHES_MAX):
        core = await core.die()
        start = asyncio.create_task(core.executor.start())
        await next_load(core, 1)
        assert [record.desired for record in core.state_file.saved.serving] == [wanted(1)]
        assert core.state_file.saved.desired == state(1, wanted(1))
        left = core.state_file.saved
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        core.state_file.saved = left
    core = await core.die()
    await core.start(sync=False)
    await core.clock.advance(600)
    assert core.slot().state is SlotState.FAILED
    assert core.slot().failure_reason == Reason.LOAD_CRASHED
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    await core.stop()


async def test_a_version_whose_first_images_kill_the_process_makes_way_for_the_one_before(core: Core) -> None:
    await started(core, 1)
    await core.clock.advance(limits.TRIAL_SECONDS)
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    for _ in range(limits.TRIAL_CRASHES_MAX - 1):
        await core.clock.advance(limits.TRIAL_SECONDS / 2)
        assert core.cache.complete == {folder(1), folder(2)}, "the one before keeps its bytes"
        core = await core.die()
        await core.start(sync=False)
        assert core.serving.versions() == {"cells": 2}
    core = await core.die()
    core.controller.away()
    await core.start()
    assert core.serving.versions() == {"cells": 1}
    assert (core.slot().state, core.slot().failure_reason) == (SlotState.FAILED, Reason.SERVE_CRASHED)
    core = await core.die()
    await core.start(sync=False)
    await core.clock.advance(600)
    assert core.serving.history == [("cells", 1)], "for good"
    await core.stop()


async def test_a_version_that_has_served_for_a_minute_is_trusted(core: Core) -> None:
    await started(core, 1, 2)
    await core.clock.advance(limits.TRIAL_SECONDS + 1)
    assert core.state_file.saved.trials == ()
    assert core.cache.complete == {folder(2)}
    for _ in range(2 * limits.TRIAL_CRASHES_MAX):
        core = await core.die()
        await core.start(sync=False)
        assert core.serving.versions() == {"cells": 2}
    await core.stop()


async def test_regular_restarts_blame_no_version(core: Core) -> None:
    await started(core, 1, 2)
    for _ in range(2 * limits.TRIAL_CRASHES_MAX):
        await core.stop()
        core = await core.die()
        await core.start(sync=False)
        await core.clock.advance(1)
        assert core.serving.versions() == {"cells": 2}
    await core.stop()


async def test_the_fallback_of_two_quick_successors_is_the_one_that_proved_itself(core: Core) -> None:
    await started(core, 1)
    await core.clock.advance(limits.TRIAL_SECONDS + 1)
    for version in (2, 3):
        await take_up(core, version)
    (trial,) = core.state_file.saved.trials
    assert isinstance(trial, Trial)
    assert trial.before is not None
    assert (trial.desired.version, trial.before.desired.version) == (3, 1)
    await core.clock.advance(5)
    assert core.cache.complete == {folder(1), folder(3)}


async def test_another_offer_of_what_serves_on_trial_ends_no_trial(core: Core) -> None:
    await started(core, 1, 2)
    await core.executor.desire(state(3, wanted(2, offer=1)))
    await core.clock.run_until(lambda: core.slot().offer == 1)
    for _ in range(limits.TRIAL_CRASHES_MAX):
        core = await core.die()
        await core.start(sync=False)
    assert core.serving.versions() == {"cells": 1}
    assert core.slot().offer == 1
    await core.clock.advance(600)
    assert core.serving.versions() == {"cells": 1}
    await core.stop()


def test_a_real_process_that_dies_as_it_loads_comes_up_with_what_is_good(tmp_path: Path) -> None:
    ends: list[int] = []
    for _ in range(limits.LOAD_CRASHES_MAX + 1):
        done = subprocess.run(
            [sys.executable, str(CRASHING_AGENT), str(tmp_path)], capture_output=True, text=True, check=False
        )
        ends.append(done.returncode)
        if done.returncode == 0:
            break
    assert ends == [70] * limits.LOAD_CRASHES_MAX + [0], done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "serving": {"cells": 1},
        "failures": [["cells", 2, "LOAD_CRASHED"]],
    }
