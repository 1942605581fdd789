"""The executor: what serves goes on serving, failures are settled, restarts need nobody."""

from agent.app.conditions import STATE_READABLE, STATE_WRITABLE
from agent.app.ports import SavedState, ServingRecord
from agent.domain.device import DeviceChoice
from agent.domain.errors import Reason
from agent.domain.slot import SlotState
from tests.support.agent_core import Core, state, wanted


def folder(version: int) -> str:
    return wanted(version).artifact.digest


async def test_a_desired_version_is_fetched_measured_and_served(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    slot = core.slot()
    assert (slot.state, slot.serving_version, slot.target_version) == (SlotState.SERVING, 1, 1)
    assert slot.device_choice is not None
    assert slot.device_choice.device == "CPU"
    assert not slot.last_known_good
    assert core.state_file.saved.serving[0].desired == wanted(1)
    assert core.condition(STATE_WRITABLE) == "TRUE"


async def test_the_old_version_serves_until_the_new_one_does(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.runtime.fail_measure.add(folder(2))
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.slot().state is SlotState.FAILED)
    assert core.serving.versions() == {"cells": 1}
    assert (core.slot().serving_version, core.slot().target_version) == (1, 2)
    assert core.slot().failure_reason == Reason.COMPILE_CRASHED
    assert folder(1) in core.cache.complete, "what serves keeps its bytes"
    await core.executor.desire(state(3, wanted(1)))
    await core.clock.run_until(lambda: core.slot().state is SlotState.SERVING)
    assert core.serving.history == [("cells", 1)], "no load for what serves already"
    assert core.slot().failure_reason == ""


async def test_a_failed_version_is_tried_again_only_when_offered_again(core: Core) -> None:
    await core.start(sync=False)
    core.runtime.fail_measure.add(folder(2))
    await core.executor.desire(state(1, wanted(2)))
    await core.clock.run_until(lambda: core.slot().state is SlotState.FAILED)
    await core.clock.advance(3600)
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.advance(3600)
    assert len(core.runtime.measured) == 1
    core.runtime.fail_measure.clear()
    await core.executor.desire(state(3, wanted(2, offer=1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})


async def test_a_failure_is_remembered_over_a_restart(core: Core) -> None:
    core.runtime.fail_measure.add(folder(2))
    await core.executor.start()
    await core.executor.desire(state(1, wanted(2)))
    core.state_file.saved = SavedState(
        desired=state(1, wanted(2)), failures=core.state_file.saved.failures, boot_count=1
    )
    await core.start(sync=False)
    await core.clock.run_until(lambda: core.slot().state is SlotState.FAILED)
    failures = core.state_file.saved.failures
    assert [(each.slot, each.version) for each in failures] == [("cells", 2)]


async def test_a_failed_version_in_the_state_file_is_not_tried_at_the_start(core: Core) -> None:
    core.runtime.fail_load.add(folder(2))
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(2)))
    await core.clock.run_until(lambda: core.slot().state is SlotState.FAILED)
    saved = core.state_file.saved
    measured = len(core.runtime.measured)
    await core.executor.start()  # as after a restart on the same state
    await core.clock.advance(600)
    assert core.state_file.saved.failures == saved.failures
    assert len(core.runtime.measured) == measured


async def test_a_restart_serves_what_served_without_a_controller(core: Core) -> None:
    choice = DeviceChoice(device="CPU", reason="measured before", measurements=())
    core.cache.complete.add(folder(1))
    core.state_file.saved = SavedState(
        desired=state(4, wanted(1)), serving=(ServingRecord(desired=wanted(1), choice=choice),), boot_count=2
    )
    core.controller.away()
    await core.start()
    await core.clock.advance(60)
    assert core.serving.versions() == {"cells": 1}
    assert core.runtime.measured == []
    assert core.slot().last_known_good
    assert core.executor.boot_count == 3
    core.controller.desired = state(4, wanted(1))
    core.controller.back()
    await core.clock.run_until(lambda: not core.slot().last_known_good)
    assert core.serving.history == [("cells", 1)]


async def test_slots_of_the_last_run_are_announced_before_they_are_loaded(core: Core) -> None:
    """Whoever asks while the agent starts is told to wait, not that there is no such model."""
    choice = DeviceChoice(device="CPU", reason="measured before", measurements=())
    core.state_file.saved = SavedState(
        desired=state(4, wanted(1, slot="desired")),
        serving=(ServingRecord(desired=wanted(1, slot="served"), choice=choice),),
    )
    await core.executor.recall()
    assert core.serving.announced == ["desired", "served"]
    assert core.serving.versions() == {}


async def test_last_known_good_that_cannot_be_loaded_is_prepared_anew(core: Core) -> None:
    choice = DeviceChoice(device="CPU", reason="measured before", measurements=())
    core.cache.complete.add(folder(1))
    core.runtime.fail_load.add(folder(1))
    core.state_file.saved = SavedState(
        desired=state(4, wanted(1)), serving=(ServingRecord(desired=wanted(1), choice=choice),)
    )
    await core.executor.start()
    assert core.serving.versions() == {}
    core.runtime.fail_load.clear()
    await core.start(sync=False)
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})


async def test_a_damaged_state_file_means_an_empty_start(core: Core) -> None:
    core.state_file.readable = False
    await core.start(sync=False)
    await core.clock.advance(1)
    assert core.executor.observed() == ()
    assert core.condition(STATE_READABLE) == "FALSE"


async def test_a_controller_out_of_reach_fails_no_version(core: Core) -> None:
    await core.start(sync=False)
    core.controller.away()
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.advance(3600)
    assert core.slot().state is SlotState.DOWNLOADING
    assert core.cache.fetches > 50
    core.controller.back()
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})


async def test_a_refused_download_fails_after_a_few_tries(core: Core) -> None:
    await core.start(sync=False)
    core.controller.refuse(Reason.CONTROLLER_REFUSED)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.slot().state is SlotState.FAILED)
    assert 2 <= core.cache.fetches <= 8
    assert core.slot().failure_reason == Reason.CONTROLLER_REFUSED


async def test_wrong_bytes_are_tried_once_more(core: Core) -> None:
    await core.start(sync=False)
    core.cache.mismatches = 1
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.cache.mismatches = 2
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.slot().state is SlotState.FAILED)
    assert core.slot().failure_reason == Reason.DIGEST_MISMATCH
    assert core.serving.versions() == {"cells": 1}


async def test_a_full_disk_fails_the_version_and_not_the_line(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.cache.disk_full = True
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.slot().state is SlotState.FAILED)
    assert core.slot().failure_reason == Reason.DISK_FULL
    assert core.serving.versions() == {"cells": 1}


async def test_a_read_only_state_folder_is_a_condition(core: Core) -> None:
    core.state_file.writable = False
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    assert core.condition(STATE_WRITABLE) == "FALSE"
    core.state_file.writable = True
    await core.clock.run_until(lambda: core.condition(STATE_WRITABLE) == "TRUE")
    assert core.state_file.saved.serving[0].desired == wanted(1)


async def test_a_download_that_is_no_longer_wanted_is_given_up(core: Core) -> None:
    await core.start(sync=False)
    core.cache.hang = True
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.cache.fetches == 1)
    core.cache.hang = False
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})


async def test_a_measurement_that_is_no_longer_wanted_is_given_up(core: Core) -> None:
    await core.start(sync=False)
    core.runtime.hang_measure = True
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.runtime.measured != [])
    core.runtime.hang_measure = False
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    assert core.runtime.cancelled == 1


async def test_one_slot_that_waits_holds_up_no_other(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1, slot="welds")))
    await core.clock.run_until(lambda: core.serving.versions() == {"welds": 1})
    core.controller.away()
    core.cache.complete.add(folder(3))
    await core.executor.desire(state(2, wanted(2, slot="cells"), wanted(3, slot="welds")))
    await core.clock.run_until(lambda: core.serving.versions() == {"welds": 3})
    assert core.slot("cells").state is SlotState.DOWNLOADING


async def test_what_is_no_longer_desired_is_unloaded_and_pruned(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1, slot="cells"), wanted(2, slot="welds")))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1, "welds": 2})
    await core.executor.desire(state(2, wanted(2, slot="welds")))
    await core.clock.run_until(lambda: core.serving.versions() == {"welds": 2})
    await core.clock.run_until(lambda: core.cache.complete == {folder(2)})
    assert [slot.slot for slot in core.executor.observed()] == ["welds"]


async def test_the_same_state_again_begins_nothing_anew(core: Core) -> None:
    await core.start(sync=False)
    core.controller.refuse(Reason.CONTROLLER_REFUSED)
    await core.executor.desire(state(1, wanted(1)))
    for _ in range(20):
        await core.clock.advance(60)
        await core.executor.desire(state(1, wanted(1)))
    assert core.slot().state is SlotState.FAILED
    assert core.cache.fetches <= 8


async def test_a_changed_sample_policy_is_adopted_in_place(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    changed = wanted(1, random_fraction=0.5)
    await core.executor.desire(state(2, changed))
    await core.clock.run_until(lambda: core.serving.slots["cells"] == changed)
    assert len(core.runtime.loaded) == 1


async def test_what_serves_keeps_its_bytes_while_its_successor_waits(core: Core) -> None:
    await core.start(sync=False)
    await core.executor.desire(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.controller.away()
    await core.executor.desire(state(2, wanted(2)))
    await core.clock.advance(600)
    assert core.cache.complete == {folder(1)}
