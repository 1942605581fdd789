"""Waves are a stable partition of the targets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import AgentId
from controlplane.domain.rollout import Wave, WaveSize, WaveState
from controlplane.domain.wave import EVERYBODY, enlist, parse_wave_sizes, plan_waves
from tests.domain import strategies


@given(strategies.wave_sizes(), strategies.fleets, st.text(max_size=3))
def test_each_target_is_in_exactly_one_wave_and_no_wave_is_empty(
    sizes: tuple[WaveSize, ...], agents: set[AgentId], seed: str
) -> None:
    waves = plan_waves(sizes, agents, seed=seed)
    assert sorted(agent for wave in waves for agent in wave.agents) == sorted(agents)
    assert all(wave.agents and wave.agents == tuple(sorted(wave.agents)) for wave in waves)
    assert [wave.index for wave in waves] == list(range(len(waves)))
    assert all(wave.state is WaveState.PENDING for wave in waves)


@given(strategies.wave_sizes(), strategies.targets)
def test_the_first_wave_and_every_prefix_keep_their_sizes(sizes: tuple[WaveSize, ...], agents: set[AgentId]) -> None:
    waves = plan_waves(sizes, agents, seed="s")
    exposed = 0
    reached = set()
    for wave in waves:
        exposed += len(wave.agents)
        reached.add(exposed)
        assert exposed == wave.size.of(len(agents))
    assert len(waves[0].agents) == sizes[0].of(len(agents))
    assert reached <= {size.of(len(agents)) for size in sizes}
    assert waves[-1].size == EVERYBODY


@given(strategies.wave_sizes(), strategies.targets, st.randoms(use_true_random=False))
def test_the_order_in_which_targets_come_does_not_matter(
    sizes: tuple[WaveSize, ...], agents: set[AgentId], random: object
) -> None:
    shuffled = list(agents)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan_waves(sizes, shuffled, seed="s") == plan_waves(sizes, sorted(agents), seed="s")


@given(strategies.wave_sizes(), strategies.targets, strategies.fleets)
def test_a_late_target_joins_the_last_wave_and_moves_nobody(
    sizes: tuple[WaveSize, ...], agents: set[AgentId], late: set[AgentId]
) -> None:
    before = plan_waves(sizes, agents, seed="s")
    after = enlist(before, agents | late)
    assert after[:-1] == before[:-1]
    assert set(after[-1].agents) == set(before[-1].agents) | (late - agents)
    assert after[-1].agents == tuple(sorted(after[-1].agents))
    assert enlist(after, agents | late) is after


@given(strategies.wave_sizes(), strategies.targets, strategies.fleets)
def test_an_agent_that_joins_moves_nobody_to_an_earlier_wave(
    sizes: tuple[WaveSize, ...], agents: set[AgentId], late: set[AgentId]
) -> None:
    before = plan_waves(sizes, agents, seed="s")
    after = enlist(before, agents | late)
    assert all(places(after)[agent] >= index for agent, index in places(before).items())


@given(st.sets(st.integers(1, 30), max_size=3), strategies.targets, strategies.fleets)
def test_with_counts_a_larger_fleet_is_planned_with_nobody_earlier(
    counts: set[int], agents: set[AgentId], more: set[AgentId]
) -> None:
    sizes = (*(WaveSize(count=count) for count in sorted(counts)), EVERYBODY)
    before, after = (places(plan_waves(sizes, fleet, seed="s")) for fleet in (agents, agents | more))
    assert all(after[agent] >= index for agent, index in before.items())


def places(waves: tuple[Wave, ...]) -> dict[AgentId, int]:
    return {agent: wave.index for wave in waves for agent in wave.agents}


@given(strategies.wave_sizes(), strategies.targets, st.data())
def test_the_canary_has_an_agent_of_every_known_device_class_and_no_more_than_that(
    sizes: tuple[WaveSize, ...], agents: set[AgentId], data: st.DataObject
) -> None:
    drawn = {agent: data.draw(st.sampled_from(["", "cpu", "gpu", "npu"])) for agent in sorted(agents)}
    classes = {agent: found for agent, found in drawn.items() if found}
    plain = plan_waves(sizes, agents, seed="s")
    waves = plan_waves(sizes, agents, seed="s", device_classes=classes)
    assert sorted(agent for wave in waves for agent in wave.agents) == sorted(agents)
    assert all(wave.agents for wave in waves)
    canary = set(waves[0].agents)
    assert {classes[agent] for agent in canary if agent in classes} == set(classes.values())
    added = canary - set(plain[0].agents)
    assert set(plain[0].agents) <= canary
    assert len({classes[agent] for agent in added}) == len(added)
    assert not {classes[agent] for agent in added} & {classes.get(agent) for agent in plain[0].agents}


def test_another_seed_draws_another_canary() -> None:
    agents = [AgentId(f"st-{number}") for number in range(50)]
    canaries = {plan_waves((WaveSize(count=1), EVERYBODY), agents, seed=str(seed))[0].agents for seed in range(20)}
    assert len(canaries) > 5


@pytest.mark.parametrize(
    ("agents", "written", "sizes"),
    [
        (10, "1,50%,100%", [("1", 1), ("50%", 4), ("100%", 5)]),
        (3, "1,50%,100%", [("1", 1), ("50%", 1), ("100%", 1)]),
        (2, "1,50%,100%", [("1", 1), ("100%", 1)]),
        (1, "1,50%,100%", [("100%", 1)]),
        (4, "10,20,100%", [("100%", 4)]),
        (7, "10%,100%", [("10%", 1), ("100%", 6)]),
        (0, "1,100%", []),
    ],
)
def test_small_fleets_get_sensible_waves(agents: int, written: str, sizes: list[tuple[str, int]]) -> None:
    waves = plan_waves(parse_wave_sizes(written), [AgentId(f"st-{number}") for number in range(agents)], seed="s")
    assert [(str(wave.size), len(wave.agents)) for wave in waves] == sizes


def test_sizes_are_read_from_a_text_and_from_a_list() -> None:
    sizes = (WaveSize(count=1), WaveSize(percent=50), EVERYBODY)
    assert parse_wave_sizes("1, 50%,100%") == sizes
    assert parse_wave_sizes(["1", "50%", "100%"]) == sizes


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("", "is not the size"),
        ([], "the last wave is not 100%"),
        ("1,50%", "the last wave is not 100%"),
        ("1,1,100%", "1 does not grow on 1"),
        ("50%,20%,100%", "20% does not grow on 50%"),
        ("50%,3,100%", "3 does not grow on 50%"),
        ("100%,100%", "100% does not grow on 100%"),
        ("0,100%", "'0' is not the size"),
        ("-1,100%", "'-1' is not the size"),
        ("1.5,100%", "'1.5' is not the size"),
        ("101%", "'101%' is not the size"),
        ("half,100%", "'half' is not the size"),
        ("1,2,3,4,5,100%", "6 waves are too many"),
    ],
)
def test_bad_sizes_are_refused_with_a_remedy(written: str | list[str], says: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        parse_wave_sizes(written, waves_max=5)
    assert says in refusal.value.message
    assert refusal.value.field == "rollout.strategy.waves"
    assert refusal.value.remedy
