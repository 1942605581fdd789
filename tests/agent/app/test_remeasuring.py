"""A device choice holds as long as the devices do: measured again when they change, and not otherwise."""

from dataclasses import replace

from agent import limits
from agent.domain.device import DeviceChoice, DeviceMeasurement
from tests.support.agent_core import Core, state, wanted


async def serving(core: Core, box: str = "one") -> None:
    core.runtime.box = box
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})


def choice(core: Core) -> DeviceChoice:
    found = core.slot().device_choice
    assert found is not None
    return found


async def test_nothing_is_measured_again_while_the_devices_stay(core: Core) -> None:
    await serving(core)
    await core.clock.advance(10 * limits.HOST_FACTS_SECONDS)
    core = await core.die()
    await core.start(sync=False)
    await core.clock.advance(10 * limits.HOST_FACTS_SECONDS)
    assert len(core.runtime.measured) == 1
    assert choice(core).fingerprint == "one"


async def test_other_devices_are_measured_while_the_old_choice_serves(core: Core) -> None:
    await serving(core)
    core.runtime.box = "two"
    await core.clock.advance(limits.HOST_FACTS_SECONDS)
    assert len(core.runtime.measured) == 2
    assert choice(core).fingerprint == "two"
    assert core.serving.history == [("cells", 1)], "the same device is best: nothing is loaded again"
    await core.clock.advance(10 * limits.HOST_FACTS_SECONDS)
    assert len(core.runtime.measured) == 2


async def test_a_restart_on_another_box_serves_first_and_measures_then(core: Core) -> None:
    await serving(core)
    core = await core.die()
    core.runtime.box = "two"
    await core.start(sync=False)
    assert core.serving.versions() == {"cells": 1}
    await core.clock.advance(limits.HOST_FACTS_SECONDS)
    assert len(core.runtime.measured) == 2
    assert core.slot().serving_version == 1


async def test_a_measurement_that_fails_leaves_what_serves(core: Core) -> None:
    await serving(core)
    core.runtime.fail_measure = {wanted(1).artifact.digest}
    core.runtime.box = "two"
    await core.clock.advance(limits.HOST_FACTS_SECONDS)
    assert core.slot().serving_version == 1
    assert not core.slot().failure_reason
    core.runtime.fail_measure = set()
    await core.clock.advance(limits.CANDIDATE_RETRY_SECONDS_MAX)
    assert choice(core).fingerprint == "two"


async def test_a_better_device_takes_over(core: Core) -> None:
    await serving(core)
    before = choice(core)
    slow = DeviceMeasurement(device="GPU", ok=True, latency_ms_p50=9.0)
    old = replace(before, device="GPU", fingerprint="before", measurements=(slow,))
    core.executor._slots["cells"] = replace(core.slot(), device_choice=old)
    core.runtime.box = "two"
    await core.clock.advance(limits.HOST_FACTS_SECONDS)
    assert choice(core).device == "CPU"
    assert core.serving.history == [("cells", 1), ("cells", 1)]


async def test_a_look_that_fails_changes_nothing(core: Core) -> None:
    await serving(core)
    core.runtime.box = ""
    await core.clock.advance(3 * limits.HOST_FACTS_SECONDS)
    assert len(core.runtime.measured) == 1


async def test_a_lost_device_is_left_out_until_the_next_start(core: Core) -> None:
    await serving(core)
    core.executor._watch.lose("NPU")
    await core.clock.advance(limits.HOST_FACTS_SECONDS)
    assert core.runtime.devices_lost == [frozenset(), frozenset({"NPU"})]
    core = await core.die()
    await core.start(sync=False)
    await core.clock.advance(limits.HOST_FACTS_SECONDS)
    assert core.runtime.devices_lost[-1] == frozenset()
    assert len(core.runtime.devices_lost) == 3


async def test_compiled_models_are_pruned_with_the_artifacts(core: Core) -> None:
    await serving(core)
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    await core.clock.advance(2 * limits.TRIAL_SECONDS)
    assert core.runtime.pruned >= 1
