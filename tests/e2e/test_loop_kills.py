"""kill -9 of an agent at each stage of the loop: whatever it has kept arrives exactly once and is frozen once, and one
round follows the other until the version that came of it answers at the station."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from lineside.v1 import (
    dataset_pb2,
    label_service_pb2,
    promotion_pb2,
    rollout_pb2,
    slot_pb2,
    training_policy_pb2,
)

from tests.support.line import Line, wait_until
from tests.support.sampling_station import SamplingStation, sampling_station
from tests.training.scratches import LABELS, Defect, scratch_model, write_pictures

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]
MODEL = "scratch"
STATION = "st-1"
PICTURES = 160
"""Labelled in each round."""
TWICE = 20
"""Of those, how many are shown again once the agent has forgotten that it kept them: equal contents."""


@pytest.fixture
def station(line: Line) -> Iterator[SamplingStation]:
    """It serves version 1 and keeps what it is shown."""
    line.publish(MODEL, scratch_model(line.folder / "v1"))
    line.deploy("d", MODEL, 1, keep_samples=True)
    with sampling_station(line, STATION, model=MODEL) as made:
        line.wait_serving(STATION, MODEL, 1)
        yield made


def pictures_of(station: SamplingStation, count: int, *, seed: int, kind: Defect = "scratch") -> list[Path]:
    folder = station.line.folder / f"pictures-{seed}"
    write_pictures(folder, count, seed=seed, kind=kind)
    return sorted(folder.glob("*.png"))


# --- stages at which the agent is killed; each leaves it serving, in reach, and with nothing cut ---


def killed_while_the_controller_is_away(station: SamplingStation, pictures: Sequence[Path]) -> None:
    station.line.controller.kill()
    station.show_and_hold(pictures)
    held = station.kill_and_start()
    assert held <= station.held(), "the start kept them"
    station.show_and_hold(pictures[:TWICE])
    station.line.controller.start()


def killed_in_mid_upload(station: SamplingStation, pictures: Sequence[Path]) -> None:
    """After the controller has stored a sample and before the agent has heard so."""
    station.show(pictures[:1])
    wait_until(lambda: pictures[0].stem in parts_arrived(station), what="the connection to stand")
    wait_until(lambda: not station.held(), what="the first to be acknowledged")
    station.uplink.mute()
    station.show_and_hold(pictures[1:])
    stored = wait_until(lambda: station.held() & {*station.arrived_ids()}, what="a sample that is on both sides")
    assert stored <= station.kill_and_start(), "it is sent again"
    station.uplink.mend()
    station.show(pictures[:TWICE])


def parts_arrived(station: SamplingStation) -> set[str]:
    return {sample.result.part_id for sample in station.arrived()}


def test_what_a_killed_agent_held_arrives_once(station: SamplingStation) -> None:
    first, second = pictures_of(station, 60, seed=1), pictures_of(station, 60, seed=2)
    killed_while_the_controller_is_away(station, first)
    killed_in_mid_upload(station, second)
    station.check_each_arrived_once()
    assert parts_arrived(station) == {picture.stem for picture in (*first, *second)}
    label(station, [*first, *second])
    with station.line.client() as client:
        dataset = client.datasets.freeze(MODEL, rule=dataset_pb2.DatasetRule(near_duplicate_distance=0))
    check_frozen_once(station, dataset.name, contents=120)

    def counts() -> slot_pb2.SampleCounts:
        with station.line.client() as client:
            return client.agents.get(STATION).sample_counts

    # Since its last start it was shown but those again.
    wait_until(lambda: counts().kept_counts["RANDOM"] == TWICE and not counts().waiting_count, what="counts of samples")


# --- the loop ---


def label(station: SamplingStation, pictures: Sequence[Path]) -> None:
    """Say of each sample of these pictures what is on it; the pictures' order tells."""
    words = {picture.stem: LABELS[index % 2] for index, picture in enumerate(pictures)}
    entries = [label_service_pb2.LabelEntry(target=part, label=word) for part, word in words.items()]
    with station.line.client() as client:
        outcome = client.labels.add(MODEL, entries)
    assert not outcome.errors


def check_frozen_once(station: SamplingStation, dataset: str, *, contents: int) -> None:
    """Every content that was labelled is in it, each once, and on one side."""
    with station.line.client() as client:
        items = [item for holdout in (False, True) for item in client.datasets.items(dataset, holdout=holdout)]
        left_out = dict(client.datasets.get(dataset).left_out)
    assert len(items) == len({item.digest for item in items}) == len({item.sample for item in items}) == contents
    assert left_out.keys() == {"DUPLICATE"}, "what was shown again is there again, and left out"


def set_policy(line: Line, strategy: rollout_pb2.RolloutStrategy) -> None:
    judgement = training_policy_pb2.TrainingPolicy.JudgementPolicy(class_budget=0.3, min_parts=10, min_class_parts=3)
    policy = training_policy_pb2.TrainingPolicy(
        name=f"models/{MODEL}/trainingPolicy",
        trainer="head",
        min_new_labels=PICTURES,
        judgement=judgement,
        approval=training_policy_pb2.TrainingPolicy.APPROVAL_AUTO,
        deployment="deployments/d",
        strategy=strategy,
        dataset_rule=dataset_pb2.DatasetRule(near_duplicate_distance=0),
    )
    with line.client() as client:
        client.training_policies.set(policy)


def wait_promoted(line: Line, rounds: int) -> promotion_pb2.Promotion:
    """Return the newest promotion once there are so many and its rollout is under way."""

    def newest() -> promotion_pb2.Promotion | None:
        with line.client() as client:
            promotions = list(client.promotions.list(model=MODEL))
        assert len(promotions) <= rounds, "a set of labels is trained on once"
        return promotions[0] if len(promotions) == rounds and promotions[0].rollout else None

    found: promotion_pb2.Promotion = wait_until(newest, what=f"round {rounds} to be promoted")
    return found


def slot_of(station: SamplingStation) -> slot_pb2.ObservedSlot:
    slot = station.line.slot(STATION, MODEL)
    assert slot is not None
    return slot


# --- stages of a rollout at which it is killed; `pictures` are what the line sees meanwhile ---


def killed_while_a_candidate_shadows(station: SamplingStation, version: str, pictures: Sequence[Path]) -> None:
    running = slot_pb2.ObservedShadow.STATE_RUNNING
    wait_until(lambda: slot_of(station).shadow.state == running, what="the candidate to run in shadow")
    assert slot_of(station).shadow.candidate_version == version
    station.uplink.cut()
    station.show_and_hold(pictures[: TWICE // 2])
    wait_until(lambda: slot_of(station).shadow.compared_count, what="a comparison")
    station.kill_and_start()
    station.uplink.mend()
    wait_until(lambda: serves_while_the_line_goes_on(station, version, pictures), what=f"{version} to be released")


def serves_while_the_line_goes_on(station: SamplingStation, version: str, pictures: Sequence[Path]) -> bool:
    """Of a burst of pictures a candidate that rests in between is shown few: so they come one by one."""
    station.show(pictures[:1])
    return slot_of(station).serving_version == version


def killed_when_a_version_is_prefetched(station: SamplingStation, version: str, pictures: Sequence[Path]) -> None:
    wait_until(lambda: slot_of(station).prefetched_version == version, what="the version to be prefetched")
    station.uplink.cut()
    station.show_and_hold(pictures)
    station.kill_and_start()
    assert slot_of(station).serving_version != version
    with station.line.client() as client:
        (rollout,) = [found for found in client.rollouts.list() if found.target_version == version]
        client.rollouts.approve(rollout.name)
    # What is prefetched is swapped in without a byte more.
    station.line.wait_serving(STATION, MODEL, int(version.rpartition("/")[2]))
    station.uplink.mend()


def killed_while_a_version_is_fetched(station: SamplingStation, version: str, pictures: Sequence[Path]) -> None:
    station.uplink.cut()
    with station.line.client() as client:
        (rollout,) = [found for found in client.rollouts.list() if found.target_version == version]
        client.rollouts.approve(rollout.name)
    downloading = slot_pb2.ObservedSlot.STATE_DOWNLOADING
    wait_until(lambda: slot_of(station).state == downloading, what="the version to be on its way")
    station.show_and_hold(pictures)
    station.kill_and_start()
    station.uplink.mend()


Stage = Callable[[SamplingStation, str, Sequence[Path]], None]
Collection = Callable[[SamplingStation, Sequence[Path]], None]
ALL = ("100%",)
NO_WAIT = rollout_pb2.GatePolicy(min_inferences=0)
EVERY_WAVE = rollout_pb2.ApprovalPolicy(scope=rollout_pb2.ApprovalPolicy.SCOPE_EVERY_WAVE)
COMPARED = rollout_pb2.ShadowPolicy(min_comparisons=TWICE, min_agreement_per_mille=0)
SHADOWED = rollout_pb2.RolloutStrategy(waves=ALL, gate=NO_WAIT, shadow=COMPARED)
PREFETCHED = rollout_pb2.RolloutStrategy(waves=ALL, gate=NO_WAIT, prefetch=True, approval=EVERY_WAVE)
APPROVED = rollout_pb2.RolloutStrategy(waves=ALL, gate=NO_WAIT, approval=EVERY_WAVE)
ROUNDS: Sequence[tuple[Defect, Collection, rollout_pb2.RolloutStrategy, Stage]] = (
    ("scratch", killed_while_the_controller_is_away, SHADOWED, killed_while_a_candidate_shadows),
    ("dim", killed_in_mid_upload, PREFETCHED, killed_when_a_version_is_prefetched),
    ("blurred", killed_while_the_controller_is_away, APPROVED, killed_while_a_version_is_fetched),
)
"""Each brings a defect that no round before has shown, so that its candidate has something to gain."""


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_round_follows_round_through_kills_of_the_agent(station: SamplingStation) -> None:
    line = station.line
    live = pictures_of(station, 2 * TWICE, seed=9)
    for number, (kind, collect, strategy, release) in enumerate(ROUNDS, start=1):
        set_policy(line, strategy)
        pictures = pictures_of(station, PICTURES, seed=number, kind=kind)
        collect(station, pictures)
        station.check_each_arrived_once()
        label(station, pictures)
        promotion = wait_promoted(line, number)
        assert promotion.model_version == f"models/{MODEL}/versions/{number + 1}"
        assert promotion.judgement.champion_version == f"models/{MODEL}/versions/{number}"
        check_frozen_once(station, promotion.dataset, contents=number * PICTURES)
        release(station, promotion.model_version, live)
        line.wait_serving(STATION, MODEL, number + 1)
        wait_released(line, promotion)
        station.check_each_arrived_once()
    with line.client() as client:
        assert len(list(client.training.list(model=MODEL))) == len(ROUNDS), "one run a round"
        assert len(list(client.rollouts.list())) == len(ROUNDS), "one rollout a round"


def wait_released(line: Line, promotion: promotion_pb2.Promotion) -> None:
    """Return when the promotion and its rollout have ended well."""

    def ended() -> bool:
        assert line.rollout(promotion.rollout).state in {
            rollout_pb2.Rollout.STATE_RUNNING,
            rollout_pb2.Rollout.STATE_SUCCEEDED,
        }
        return line.rollout(promotion.rollout).state == rollout_pb2.Rollout.STATE_SUCCEEDED

    wait_until(ended, what=f"{promotion.rollout} to succeed")
    with line.client() as client:
        run = promotion.name.split("/")[1]
        wait_until(
            lambda: client.promotions.get(run).state == promotion_pb2.Promotion.STATE_RELEASED,
            what="the promotion to end",
        )
