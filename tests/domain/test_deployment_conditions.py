"""What a deployment's conditions say, and when they change."""

from dataclasses import replace

from controlplane.domain.assignment import Standing, assign
from controlplane.domain.condition import Condition, ConditionState
from controlplane.domain.deployment import Deployment
from controlplane.domain.deployment_conditions import find_reach, join_reach, judge
from controlplane.domain.ids import ModelId
from controlplane.domain.inventory import AgentRecord, ObservedState, SlotState
from tests.support.factories import (
    NOW,
    after_seconds,
    make_agent,
    make_deployment,
    make_observation,
    make_observed_slot,
)


def serving(agent: str, version: int, *, state: SlotState = SlotState.SERVING, **labels: str) -> AgentRecord:
    slot = make_observed_slot(serving_version=version, state=state)
    observation = make_observation(agent_id=agent, observed=ObservedState(generation=1, slots=(slot,)))
    return AgentRecord(agent=make_agent(id=agent, labels={"line": "3", **labels}), observation=observation)


def found(
    deployment: Deployment,
    *agents: AgentRecord,
    others: tuple[Deployment, ...] = (),
    yanked: frozenset[tuple[ModelId, int]] = frozenset(),
    seconds: float = 0.0,
) -> dict[str, Condition]:
    standing = Standing(agents=agents, deployments=(deployment, *others), yanked=yanked)
    reach = find_reach(standing, assign(standing))[deployment.id]
    is_yanked = deployment.version is not None and (deployment.model_id, deployment.version) in yanked
    conditions = judge(deployment, reach, version_yanked=is_yanked, now=after_seconds(seconds))
    return {condition.type: condition for condition in conditions}


def test_converged_counts_who_serves_what_it_should() -> None:
    slow = serving("st-2", 1, state=SlotState.DOWNLOADING)
    condition = found(make_deployment(), serving("st-1", 1), slow)["Converged"]
    assert (condition.state, condition.reason) == (ConditionState.FALSE, "AgentsLagging")
    assert condition.message == "1 of 2 agents serve what they should; not: st-2"
    assert found(make_deployment(), serving("st-1", 1))["Converged"].state is ConditionState.TRUE


def test_a_deployment_without_agents_is_neither_converged_nor_not() -> None:
    assert found(make_deployment())["Converged"].state is ConditionState.UNKNOWN


def test_overlapping_names_the_other_and_who_holds_the_agents() -> None:
    older, newer = make_deployment(id="old"), make_deployment(id="new", selector="site=x", create_time=after_seconds(1))
    agents = (serving("st-1", 1, site="x"), serving("st-2", 1))
    of_older, of_newer = found(older, *agents, others=(newer,)), found(newer, *agents, others=(older,))
    assert of_older["Overlapping"].reason == "AgentsShared"
    assert of_older["Overlapping"].message == (
        "1 agent is matched by deployments/new of priority 0 too; it is the older and holds st-1"
    )
    assert of_newer["Overlapping"].reason == "AgentsLost"
    assert "deployments/old" in of_newer["Overlapping"].message
    assert "an older one holds st-1" in of_newer["Overlapping"].message


def test_another_priority_or_another_model_is_no_overlap() -> None:
    higher = make_deployment(id="higher", priority=5)
    other_model = make_deployment(id="weld", model_id="weld")
    conditions = found(make_deployment(), serving("st-1", 1), others=(higher, other_model))
    assert conditions["Overlapping"].state is ConditionState.FALSE


def test_a_yanked_version_shows_and_names_who_has_none() -> None:
    yanked = frozenset({(ModelId("solar"), 1)})
    fresh = AgentRecord(agent=make_agent(id="st-9", labels={"line": "3"}))
    condition = found(make_deployment(), serving("st-1", 1), fresh, yanked=yanked)["VersionYanked"]
    assert condition.state is ConditionState.TRUE
    assert condition.message.endswith("without a version: st-9")
    assert found(make_deployment(), fresh)["VersionYanked"].state is ConditionState.FALSE


def test_a_transition_time_moves_exactly_with_its_state() -> None:
    first = found(make_deployment(), serving("st-1", 1), serving("st-2", 2))
    told = make_deployment(conditions=tuple(first.values()))
    same_state = found(told, serving("st-1", 1), serving("st-2", 2), serving("st-3", 2), seconds=10)
    assert same_state["Converged"].message != first["Converged"].message
    assert same_state["Converged"].transition_time == NOW
    moved = found(told, serving("st-1", 1), serving("st-2", 1), seconds=20)
    assert moved["Converged"].transition_time == after_seconds(20)
    assert moved["Overlapping"] == first["Overlapping"]


def test_conditions_that_say_nothing_new_are_the_ones_that_were_there() -> None:
    first = found(make_deployment(), serving("st-1", 1))
    told = make_deployment(conditions=tuple(first.values()))
    assert tuple(found(told, serving("st-1", 1), seconds=60).values()) == told.conditions


def test_a_message_stays_one_line_for_any_fleet() -> None:
    lagging = [serving(f"st-{number}", 2) for number in range(40)]
    assert found(make_deployment(), *lagging)["Converged"].message.endswith(" and 35 more")


def test_a_fleet_in_parts_reaches_what_the_whole_does() -> None:
    older, newer = make_deployment(id="old"), make_deployment(id="new", selector="site=x", create_time=after_seconds(1))
    sites = ("x", "y", "x", "x", "y")
    agents = [serving(f"st-{number}", 1 + number % 2, site=site) for number, site in enumerate(sites)]
    standing = Standing(agents=agents, deployments=(older, newer))
    wanted, whole = assign(standing), find_reach(standing, assign(standing))
    parts = [find_reach(replace(standing, agents=agents[first : first + 2]), wanted) for first in (0, 2, 4)]
    for deployment in (older, newer):
        assert join_reach(part[deployment.id] for part in parts) == whole[deployment.id]
    assert len(whole[older.id].held) == len(agents)
    assert whole[newer.id].lost
