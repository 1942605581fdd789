"""The sync loop in virtual time: whole states, jittered returns, revocation."""

from dataclasses import replace
from itertools import pairwise

import pytest

from agent import limits
from agent.app.conditions import CLOCK_PLAUSIBLE, CONTROLLER_ACCEPTS
from agent.app.ports import SavedState, ServingRecord, SyncReply
from agent.domain.device import DeviceChoice
from agent.domain.errors import CLOCK_FIELD, ControllerError, Reason
from agent.domain.slot import SlotState
from tests.support.agent_core import HOST, Core, state, wanted
from tests.support.clock import START


async def test_the_whole_state_is_sent_at_each_interval_and_at_each_change(core: Core) -> None:
    await core.start()
    await core.clock.advance(26)
    quiet = len(core.controller.observed)
    assert 5 <= quiet <= 8
    core.controller.push(state(1, wanted(1)))
    await core.clock.advance(1)
    states = [each.slots[0].state for each in core.controller.observed[quiet:] if each.slots]
    assert states[-1] is SlotState.SERVING
    assert core.controller.observed[-1].generation == 1
    await core.clock.advance(10)
    assert core.controller.observed[-1].slots[0].serving_version == 1, "again, though nothing has changed"


async def test_host_and_devices_go_with_the_first_message_of_a_stream(core: Core) -> None:
    await core.start()
    await core.clock.advance(12)
    first, *others = core.controller.facts
    assert first[0] == HOST
    assert first[1]
    assert all(facts == (None, None) for facts in others)
    core.controller.away()
    core.controller.back()
    count = len(core.controller.facts)
    await core.clock.run_until(lambda: len(core.controller.facts) > count)
    assert core.controller.facts[count][0] == HOST


async def test_a_lost_controller_stops_nothing_and_is_found_again(core: Core) -> None:
    await core.start()
    core.controller.push(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.controller.away()
    await core.clock.advance(600)
    assert core.serving.versions() == {"cells": 1}
    assert core.controller.located > 10, "it asks where the listeners are now"
    core.controller.desired = state(2, wanted(2))
    core.controller.back()
    await core.clock.run_until(
        lambda: core.serving.versions() == {"cells": 2}, seconds_max=limits.BACKOFF_MAX_SECONDS + 1
    )


async def test_a_half_open_connection_is_given_up(core: Core) -> None:
    await core.start()
    await core.clock.advance(7)
    core.controller.mute = True
    sent = core.controller.streams[0]
    await core.clock.run_until(lambda: sent not in core.controller.streams, seconds_max=60)
    core.controller.mute = False
    core.controller.desired = state(1, wanted(1))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1}, seconds_max=60)


async def test_a_revoked_agent_serves_on_and_asks_rarely(core: Core) -> None:
    await core.start()
    core.controller.push(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    tries = 0
    check = core.controller.check

    def counting() -> None:
        nonlocal tries
        tries += 1
        check()

    core.controller.refuse(Reason.AGENT_REVOKED)
    core.controller.check = counting  # type: ignore[method-assign]
    await core.clock.advance(3600)
    assert core.condition(CONTROLLER_ACCEPTS) == "FALSE"
    assert core.serving.versions() == {"cells": 1}
    assert tries <= 3600 / (0.5 * limits.REVOKED_RETRY_SECONDS)
    core.controller.back()
    await core.clock.run_until(lambda: core.condition(CONTROLLER_ACCEPTS) == "TRUE")


async def test_a_desired_state_that_cannot_be_understood_is_nacked_whole(core: Core) -> None:
    await core.start()
    core.controller.push(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.controller.mute = True
    refused = SyncReply(desired=None, generation=2, sync_interval_seconds=5, refusal="artifact.digest: wrong")
    core.controller.streams[0].replies.put_nowait(refused)
    await core.clock.advance(1)
    nack = core.controller.observed[-1]
    assert (nack.nack_message, nack.nack_generation, nack.generation) == ("artifact.digest: wrong", 2, 1)
    assert core.serving.versions() == {"cells": 1}


async def test_a_refusal_stands_until_there_is_something_to_take_up(core: Core) -> None:
    await core.start()
    core.controller.push(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1})
    core.controller.mute = True
    refused = SyncReply(desired=None, generation=2, sync_interval_seconds=5, refusal="wrong")
    silent = replace(refused, refusal="")
    for reply, nack in ((refused, ("wrong", 2)), (silent, ("wrong", 2)), (replace(silent, generation=1), ("", 0))):
        core.controller.streams[0].replies.put_nowait(reply)
        await core.clock.advance(6)
        told = core.controller.observed[-1]
        assert (told.nack_message, told.nack_generation) == nack


async def test_an_interval_beyond_reason_is_held_within_bounds(core: Core) -> None:
    core.controller.sync_interval_seconds = 0.0
    await core.start()
    await core.clock.advance(10)
    assert len(core.controller.observed) <= 10 / limits.SYNC_INTERVAL_SECONDS_MIN + 5


async def test_a_pushed_older_generation_changes_nothing(core: Core) -> None:
    await core.start()
    core.controller.push(state(5, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    stale = replace(core.controller.reply(-1), desired=state(3, wanted(1)))
    core.controller.streams[0].replies.put_nowait(stale)
    await core.clock.advance(30)
    assert core.serving.versions() == {"cells": 2}
    assert core.executor.generation == 5


async def test_the_first_answer_of_a_stream_holds_whatever_its_generation(core: Core) -> None:
    await core.start()
    core.controller.push(state(5, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    core.controller.away()
    core.controller.desired = state(3, wanted(1))
    core.controller.back()
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1}, seconds_max=60)
    assert core.executor.generation == 3
    core.controller.push(state(4, wanted(3)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 3}, seconds_max=1)


async def test_a_restored_controller_that_knows_no_desired_state_may_count_from_one(core: Core) -> None:
    await core.start()
    core.controller.push(state(5, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    core.controller.away()
    core.controller.forget()
    core.controller.back()
    await core.clock.advance(60)
    assert core.serving.versions() == {"cells": 2}, "it was told nothing else"
    core.controller.push(state(1, wanted(1)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1}, seconds_max=1)


async def test_the_same_generation_of_a_restored_controller_may_mean_something_else(core: Core) -> None:
    await core.start()
    core.controller.push(state(5, wanted(2)))
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 2})
    core.controller.away()
    core.controller.desired = state(5, wanted(1))
    core.controller.back()
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 1}, seconds_max=60)


async def test_a_clock_that_is_off_is_a_condition_that_says_what_it_says(core: Core) -> None:
    core.controller.error = ControllerError("expired", field=CLOCK_FIELD, remedy="set the clock of this box")
    await core.start()
    await core.clock.run_until(lambda: core.condition(CLOCK_PLAUSIBLE) == "FALSE")
    (condition,) = [each for each in core.conditions.all() if each.type == CLOCK_PLAUSIBLE]
    assert START.isoformat()[:10] in condition.message
    assert "set the clock" in condition.message
    core.controller.back()
    await core.clock.run_until(lambda: core.condition(CLOCK_PLAUSIBLE) == "TRUE")


@pytest.mark.parametrize("generation", [3, 9])
async def test_an_agent_restored_from_an_old_image_takes_up_what_the_controller_says_first(
    core: Core, generation: int
) -> None:
    """Its own generation and boot count are from long ago, or from before the controller was restored."""
    choice = DeviceChoice(device="CPU", reason="measured before", measurements=())
    core.cache.complete.add(wanted(1).artifact.digest)
    core.state_file.saved = SavedState(
        desired=state(5, wanted(1)), serving=(ServingRecord(desired=wanted(1), choice=choice),), boot_count=2
    )
    core.controller.desired = state(generation, wanted(4))
    await core.start()
    await core.clock.run_until(lambda: core.serving.versions() == {"cells": 4})
    await core.clock.run_until(lambda: core.controller.observed[-1].generation == generation)
    assert core.controller.observed[-1].boot_count == 3


async def test_who_was_told_together_does_not_report_together_for_ever(core: Core) -> None:
    await core.start()
    await core.clock.advance(200)
    times = [each.agent_time for each in core.controller.observed]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times[1:])]
    assert len(gaps) > 20
    interval = core.controller.sync_interval_seconds
    assert all(abs(gap - interval) <= limits.SYNC_SPREAD * interval + 0.01 for gap in gaps)
    assert max(gaps) - min(gaps) > 0.5 * limits.SYNC_SPREAD * interval


@pytest.mark.parametrize(("asked_seconds", "bound_seconds"), [(4.0, 4.0), (1e9, limits.REPORT_JITTER_SECONDS_MAX)])
async def test_who_was_told_together_reports_within_a_time_that_is_asked_for(
    core: Core, asked_seconds: float, bound_seconds: float
) -> None:
    core.controller.sync_interval_seconds = 200.0
    await core.start()
    await core.clock.advance(1)

    async def report_seconds(generation: int) -> float:
        await core.clock.advance(2 * bound_seconds)
        begin = core.clock.now()
        core.controller.push(state(generation, wanted(generation)))
        await core.clock.run_until(lambda: core.controller.observed[-1].generation == generation, seconds_max=60)
        first = next(each for each in core.controller.observed if each.generation == generation)
        assert first.agent_time is not None
        return (first.agent_time - begin).total_seconds()

    core.controller.report_jitter_seconds = asked_seconds
    waits = [await report_seconds(generation) for generation in range(1, 13)]
    assert max(waits) <= bound_seconds
    assert max(waits) - min(waits) > 0.5 * bound_seconds
    await core.clock.advance(2 * bound_seconds)
    assert core.controller.observed[-1].slots[0].serving_version == 12, "what it did meanwhile is said too"
    core.controller.report_jitter_seconds = 0.0
    assert await report_seconds(13) < 0.5


async def test_who_is_told_alone_waits_for_no_jitter_of_before(core: Core) -> None:
    core.controller.sync_interval_seconds = 200.0
    await core.start()
    await core.clock.advance(1)
    core.controller.report_jitter_seconds = 1e9
    core.controller.push(state(1, wanted(1)))
    await core.clock.advance(0.01)
    core.controller.report_jitter_seconds = 0.0
    core.controller.push(state(2, wanted(2)))
    await core.clock.advance(0.5)
    assert core.controller.observed[-1].generation == 2
