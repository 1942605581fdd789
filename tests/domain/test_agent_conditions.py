"""What the controller itself finds of an agent."""

from dataclasses import replace

import pytest

from controlplane.domain.agent_conditions import controller_conditions
from controlplane.domain.condition import Condition, ConditionState
from controlplane.domain.inventory import AgentRecord
from tests.support.factories import NOW, after_seconds, make_agent, make_observation


def conditions(seconds_ahead: float | None = 0.0, *, nack: str = "") -> tuple[Condition, ...]:
    observation = make_observation()
    agent_time = after_seconds(seconds_ahead) if seconds_ahead is not None else None
    observed = replace(observation.observed, agent_time=agent_time, nack_message=nack)
    record = AgentRecord(agent=make_agent(), observation=replace(observation, observed=observed))
    return controller_conditions(record, clock_skew_seconds_max=60.0)


@pytest.mark.parametrize("seconds_ahead", [None, 0.0, 60.0, -60.0])
def test_what_is_in_order_has_no_condition(seconds_ahead: float | None) -> None:
    assert conditions(seconds_ahead) == ()


@pytest.mark.parametrize(("seconds_ahead", "reason"), [(61.0, "ClockAhead"), (-3e8, "ClockBehind")])
def test_a_clock_further_off_than_the_bound_is_skewed(seconds_ahead: float, reason: str) -> None:
    (condition,) = conditions(seconds_ahead)
    assert (condition.type, condition.state, condition.reason) == ("ClockSkewed", ConditionState.TRUE, reason)
    assert f"{abs(seconds_ahead):.0f} s" in condition.message
    assert condition.transition_time == NOW


def test_a_refused_desired_state_is_told_with_its_words() -> None:
    (condition,) = conditions(nack="no such device")
    assert (condition.type, condition.state) == ("DesiredStateAccepted", ConditionState.FALSE)
    assert condition.message == "no such device"


def test_of_an_agent_that_was_never_heard_there_is_nothing_to_say() -> None:
    assert controller_conditions(AgentRecord(agent=make_agent()), clock_skew_seconds_max=60.0) == ()
