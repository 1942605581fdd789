"""Conditions of agents that the controller itself finds, beside those that the agent reports."""

from controlplane.domain.condition import Condition, ConditionState
from controlplane.domain.inventory import AgentRecord, Observation


def controller_conditions(record: AgentRecord, *, clock_skew_seconds_max: float) -> tuple[Condition, ...]:
    """Return what is out of order with an agent as it was last heard: DesiredStateAccepted False, ClockSkewed True.

    What is in order has no condition here. Each is found anew at every sync, so its transition time is the last sync's.
    """
    if record.observation is None:
        return ()
    return (*_refused(record.observation), *_skewed(record.observation, clock_skew_seconds_max))


def clock_skew_seconds(observation: Observation) -> float:
    """How far the agent's clock was ahead of the controller's when it was heard; negative where it was behind, 0 where
    it did not say. The way of the message counts as behind."""
    agent_time = observation.observed.agent_time
    return (agent_time - observation.receive_time).total_seconds() if agent_time is not None else 0.0


def _refused(observation: Observation) -> tuple[Condition, ...]:
    if not observation.observed.nack_message:
        return ()
    refused = Condition(
        type="DesiredStateAccepted",
        state=ConditionState.FALSE,
        reason="Refused",
        message=observation.observed.nack_message,
        transition_time=observation.receive_time,
    )
    return (refused,)


def _skewed(observation: Observation, clock_skew_seconds_max: float) -> tuple[Condition, ...]:
    skew_seconds = clock_skew_seconds(observation)
    if abs(skew_seconds) <= clock_skew_seconds_max:
        return ()
    skewed = Condition(
        type="ClockSkewed",
        state=ConditionState.TRUE,
        reason="ClockAhead" if skew_seconds > 0 else "ClockBehind",
        message=skew_text(skew_seconds),
        transition_time=observation.receive_time,
    )
    return (skewed,)


def skew_text(skew_seconds: float) -> str:
    """The skew in words."""
    side = "ahead of" if skew_seconds > 0 else "behind"
    return (
        f"its clock is {abs(skew_seconds):.0f} s {side} the controller's: times of its results are off by as much; "
        "nothing that the controller decides depends on it"
    )
