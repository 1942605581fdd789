"""Deployments and rollouts over the wire: one way through, and every refusal with its code, field and remedy."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from lineside.v1 import (
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    rollout_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
    slot_pb2,
)

from controlplane.app.operators import Operators
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Observation, ObservedState
from tests.support.factories import make_agent, make_model, make_observed_slot, make_version
from tests.support.wire import bearer, refused, tls_channel

Rollout = rollout_pb2.Rollout
REFUSE = rollout_service_pb2.CreateRolloutRequest.WHEN_ACTIVE_REFUSE
STATIONS = (AgentId("st-1"), AgentId("st-2"), AgentId("st-3"))


class Operator:
    """A client of both services."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._deployments: Any = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
        self._rollouts: Any = rollout_service_pb2_grpc.RolloutServiceStub(channel)
        self._metadata = bearer(token)

    async def deployment(self, method: str, **fields: Any) -> Any:
        request = getattr(deployment_service_pb2, f"{method}Request")(**fields)
        return await getattr(self._deployments, method)(request, metadata=self._metadata, timeout=20)

    async def rollout(self, method: str, **fields: Any) -> Any:
        request = getattr(rollout_service_pb2, f"{method}Request")(**fields)
        return await getattr(self._rollouts, method)(request, metadata=self._metadata, timeout=20)

    async def stream(self, method: str, **fields: Any) -> list[Any]:
        """Every answer of a stream that ends."""
        request = getattr(rollout_service_pb2, f"{method}Request")(**fields)
        answers = getattr(self._rollouts, method)(request, metadata=self._metadata, timeout=20)
        return [answer async for answer in answers]

    def watch(self, name: str) -> Any:
        request = rollout_service_pb2.WatchRolloutRequest(name=name)
        return self._rollouts.WatchRollout(request, metadata=self._metadata, timeout=20)


@pytest.fixture
async def operator(served: Any) -> AsyncIterator[Operator]:
    """An operator of a controller with three stations and a model of two versions."""
    async with served.parts.store.write() as work:
        await work.models.add(make_model())
        await work.models.add_version(make_version(number=1))
        await work.models.add_version(make_version(number=2))
        for station in STATIONS:
            await work.agents.add(make_agent(id=station, labels={"line": "3"}))
    async with tls_channel(served.api, served.ca_certificate) as channel:
        yield Operator(channel, served.operator_token)


def a_deployment(**changes: Any) -> deployment_pb2.Deployment:
    fields: dict[str, Any] = {
        "model": "models/solar",
        "model_version": "models/solar/versions/1",
        "selector": "line=3",
        "runtime_policy": slot_pb2.RuntimePolicy(hint=slot_pb2.PERFORMANCE_HINT_THROUGHPUT, devices=["CPU"]),
    }
    return deployment_pb2.Deployment(**(fields | changes))


def a_rollout(**changes: Any) -> rollout_pb2.Rollout:
    strategy = rollout_pb2.RolloutStrategy(
        waves=["1", "100%"], bake=Duration(nanos=500_000_000), gate=rollout_pb2.GatePolicy(min_inferences=0)
    )
    fields: dict[str, Any] = {
        "deployment": "deployments/line-3",
        "target_version": "models/solar/versions/2",
        "strategy": strategy,
    }
    return Rollout(**(fields | changes))


async def sync_all(served: Any) -> None:
    """Every station serves what it should, and says so."""
    async with served.parts.store.write() as work:
        observations = []
        for station in STATIONS:
            desired = await work.desired.find(station)
            slots = tuple(
                make_observed_slot(serving_version=slot.version, target_version=slot.version, offer=slot.offer)
                for slot in desired.slots
            )
            observed = ObservedState(generation=desired.generation, slots=slots)
            observations.append(Observation(agent_id=station, observed=observed, receive_time=served.parts.clock.now()))
        await work.agents.record(observations)


async def test_a_rollout_is_started_watched_and_carried_to_its_end(served: Any, operator: Operator) -> None:
    await served.parts.leadership.renew_or_wait()
    created = await operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment())
    assert (created.name, created.matched_agents) == ("deployments/line-3", 3)
    assert created.runtime_policy.hint == slot_pb2.PERFORMANCE_HINT_THROUGHPUT
    assert created.sample_policy.budget_bytes_per_day > 0
    started = await operator.rollout("CreateRollout", rollout=a_rollout())
    assert (started.state, started.previous_version) == (Rollout.STATE_RUNNING, "models/solar/versions/1")
    assert [(wave.size, len(wave.agents)) for wave in started.waves] == [("1", 1), ("100%", 2)]
    assert started.strategy.bake.ToMilliseconds() == 500
    assert started.strategy.gate.min_inferences == 0
    assert started.strategy.gate.max_errors_per_mille == 10
    watching = operator.watch(started.name)
    first = await watching.read()
    assert first.rollout == started
    changes = [first]
    for seconds in range(1, 6):
        await sync_all(served)
        await served.parts.led_rollouts.tick(served.parts.clock.now() + timedelta(seconds=seconds))
    while (change := await watching.read()) != grpc.aio.EOF:
        changes.append(change)
    assert changes[-1].rollout.state == Rollout.STATE_SUCCEEDED
    assert {change.rollout.state for change in changes[:-1]} == {Rollout.STATE_RUNNING}
    assert all(list(wave.released_agents) for wave in changes[-1].rollout.waves)
    events = [event for change in changes for event in change.events]
    assert len({event.name for event in events}) == len(events), "each decision is told once"
    assert events[0].actor == started.creator == "operators/admin"
    assert (events[0].action, events[0].resource) == ("rollout.start", started.name)
    assert events[-1].actor.startswith("rules/")
    passed = next(event for event in events if event.action == "wave.pass")
    assert {check["name"] for check in json.loads(passed.evidence_json)["checks"]} >= {"installs"}
    moved = await operator.deployment("GetDeployment", name="deployments/line-3")
    assert (moved.model_version, moved.active_rollout) == ("models/solar/versions/2", "")
    listed = await operator.rollout("ListRollouts", deployment="deployments/line-3")
    assert [one.name for one in listed.rollouts] == [started.name]


async def test_each_command_moves_the_rollout(operator: Operator) -> None:
    await operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment())
    rollout = await operator.rollout("CreateRollout", rollout=a_rollout())
    for method, state in (
        ("PauseRollout", Rollout.STATE_PAUSED),
        ("ResumeRollout", Rollout.STATE_RUNNING),
        ("RetryRollout", Rollout.STATE_RUNNING),
        ("RollbackRollout", Rollout.STATE_ROLLING_BACK),
        ("AbortRollout", Rollout.STATE_ABORTED),
    ):
        rollout = await operator.rollout(method, name=rollout.name, etag=rollout.etag)
        assert rollout.state == state
    assert (await operator.rollout("GetRollout", name=rollout.name)) == rollout
    deleted = await operator.deployment("DeleteDeployment", name="deployments/line-3")
    assert deleted.name == "deployments/line-3"
    assert not (await operator.deployment("ListDeployments")).deployments


INVALID, MISSING, WRONG_STATE = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
)


@pytest.mark.parametrize(
    ("fields", "code", "reason", "field"),
    [
        ({"deployment_id": "Line 3"}, INVALID, "FIELD_INVALID", "deployment_id"),
        ({"deployment": a_deployment(model="solar")}, INVALID, "FIELD_INVALID", "deployment.model"),
        (
            {"deployment": a_deployment(model="models/unknown", model_version="")},
            MISSING,
            "RESOURCE_NOT_FOUND",
            "deployment.model",
        ),
        (
            {"deployment": a_deployment(model_version="models/solar/versions/9")},
            MISSING,
            "RESOURCE_NOT_FOUND",
            "deployment.model_version",
        ),
        (
            {"deployment": a_deployment(model_version="models/weld/versions/1")},
            INVALID,
            "FIELD_INVALID",
            "deployment.model_version",
        ),
        ({"deployment": a_deployment(selector="line in 3")}, INVALID, "SELECTOR_INVALID", "deployment.selector"),
        ({"deployment": a_deployment(selector="")}, INVALID, "SELECTOR_INVALID", "deployment.selector"),
        ({"deployment": a_deployment(selector="line=9")}, WRONG_STATE, "SELECTION_EMPTY", "deployment.selector"),
        (
            {"deployment": a_deployment(sample_policy=slot_pb2.SamplePolicy(random_fraction=float("nan")))},
            INVALID,
            "FIELD_INVALID",
            "deployment.sample_policy.random_fraction",
        ),
        ({"request_id": "once"}, INVALID, "FIELD_INVALID", "request_id"),
    ],
)
async def test_a_deployment_that_cannot_be_is_refused(
    operator: Operator, fields: dict[str, Any], code: grpc.StatusCode, reason: str, field: str
) -> None:
    good = {"deployment_id": "line-3", "deployment": a_deployment()}
    refusal = await refused(operator.deployment("CreateDeployment", **(good | fields)))
    assert (refusal.code, refusal.reason, refusal.field) == (code, reason, field)
    assert refusal.remedy
    assert not (await operator.deployment("ListDeployments")).deployments


@pytest.mark.parametrize(
    ("changes", "code", "reason", "field"),
    [
        ({"deployment": "line-3"}, INVALID, "FIELD_INVALID", "rollout.deployment"),
        ({"deployment": "deployments/other"}, MISSING, "RESOURCE_NOT_FOUND", "rollout.deployment"),
        ({"target_version": "2"}, INVALID, "FIELD_INVALID", "rollout.target_version"),
        ({"target_version": "models/solar/versions/9"}, MISSING, "RESOURCE_NOT_FOUND", "rollout.target_version"),
        ({"target_version": "models/weld/versions/1"}, INVALID, "FIELD_INVALID", "rollout.target_version"),
        (
            {"strategy": rollout_pb2.RolloutStrategy(waves=["1"])},
            INVALID,
            "FIELD_INVALID",
            "rollout.strategy.waves",
        ),
        ({"strategy": rollout_pb2.RolloutStrategy()}, INVALID, "FIELD_INVALID", "rollout.strategy.waves"),
        (
            {"strategy": rollout_pb2.RolloutStrategy(waves=["100%"], bake=Duration(seconds=-1))},
            INVALID,
            "FIELD_INVALID",
            "rollout.strategy.bake",
        ),
        (
            {
                "strategy": rollout_pb2.RolloutStrategy(
                    waves=["100%"], gate=rollout_pb2.GatePolicy(max_errors_per_mille=1001)
                )
            },
            INVALID,
            "FIELD_INVALID",
            "rollout.strategy.gate.max_errors_per_mille",
        ),
    ],
)
async def test_a_rollout_that_cannot_be_is_refused(
    operator: Operator, changes: dict[str, Any], code: grpc.StatusCode, reason: str, field: str
) -> None:
    await operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment())
    refusal = await refused(operator.rollout("CreateRollout", rollout=a_rollout(**changes)))
    assert (refusal.code, refusal.reason, refusal.field) == (code, reason, field)
    assert refusal.remedy
    assert not (await operator.rollout("ListRollouts")).rollouts


async def test_what_the_state_does_not_allow_is_refused(operator: Operator) -> None:
    await operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment())
    taken = await refused(operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment()))
    assert (taken.code, taken.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")
    overlap = await refused(operator.deployment("CreateDeployment", deployment_id="all", deployment=a_deployment()))
    assert (overlap.code, overlap.reason) == (WRONG_STATE, "DEPLOYMENT_OVERLAP")
    rollout = await operator.rollout("CreateRollout", rollout=a_rollout())
    for call, code, reason in (
        (operator.rollout("CreateRollout", rollout=a_rollout(), when_active=REFUSE), WRONG_STATE, "ROLLOUT_ACTIVE"),
        (operator.deployment("DeleteDeployment", name="deployments/line-3"), WRONG_STATE, "ROLLOUT_ACTIVE"),
        (operator.rollout("ResumeRollout", name=rollout.name), WRONG_STATE, "ROLLOUT_STATE"),
        (operator.rollout("PauseRollout", name=rollout.name, etag="77"), grpc.StatusCode.ABORTED, "STALE_WRITE"),
        (operator.rollout("PauseRollout", name="rollouts/none"), MISSING, "RESOURCE_NOT_FOUND"),
        (operator.rollout("GetRollout", name="none"), INVALID, "FIELD_INVALID"),
        (operator.watch("rollouts/none").read(), MISSING, "RESOURCE_NOT_FOUND"),
        (operator.rollout("ListRollouts", page_token="x"), INVALID, "PAGE_TOKEN_INVALID"),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (code, reason), refusal.message
    assert await operator.rollout("GetRollout", name=rollout.name) == rollout


async def test_a_wave_that_waits_for_a_second_person_is_approved_by_one(served: Any, operator: Operator) -> None:
    strategy = rollout_pb2.RolloutStrategy(
        waves=["1", "100%"],
        approval=rollout_pb2.ApprovalPolicy(scope=rollout_pb2.ApprovalPolicy.SCOPE_EVERY_WAVE, second_person=True),
    )
    await operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment())
    rollout = await operator.rollout("CreateRollout", rollout=a_rollout(strategy=strategy))
    for fields, code, reason, field in (
        ({"wave": 1}, WRONG_STATE, "APPROVAL_NOT_DUE", "wave"),
        ({}, grpc.StatusCode.PERMISSION_DENIED, "SECOND_PERSON", ""),
        ({"etag": "77"}, grpc.StatusCode.ABORTED, "STALE_WRITE", "etag"),
        ({"name": "r1"}, INVALID, "FIELD_INVALID", "name"),
        ({"name": "rollouts/none"}, MISSING, "RESOURCE_NOT_FOUND", ""),
    ):
        refusal = await refused(operator.rollout("ApproveRollout", **({"name": rollout.name} | fields)))
        assert (refusal.code, refusal.reason) == (code, reason), refusal.message
        assert field in refusal.field
        assert refusal.remedy
    operators = Operators(store=served.parts.store, clock=served.parts.clock, ids=served.parts.ids)
    bea = await operators.create("bea", actor="operators/admin")
    async with tls_channel(served.api, served.ca_certificate) as channel:
        approved = await Operator(channel, bea.text).rollout("ApproveRollout", name=rollout.name, wave=0)
    assert approved.waves[0].approver == "operators/bea"


async def test_a_rollout_is_ended_and_its_targets_keep_what_they_have(operator: Operator) -> None:
    await operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment())
    rollout = await operator.rollout("CreateRollout", rollout=a_rollout())
    ended = await operator.rollout("AbortRollout", name=rollout.name, keep=True)
    assert ended.state == Rollout.STATE_ABORTED
    change = await operator.watch(rollout.name).read()
    (abort,) = [event for event in change.events if event.action == "rollout.abort"]
    assert abort.actor == "operators/admin"


async def test_a_plan_says_what_a_start_would_do_and_changes_nothing(operator: Operator) -> None:
    await operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment())
    parts = await operator.stream("PlanRollout", rollout=a_rollout())
    assert (parts[0].plan.target_count, [wave.agent_count for wave in parts[0].plan.waves]) == (3, [1, 2])
    planned = {target.agent: target.wave for part in parts for target in part.targets}
    assert not (await operator.rollout("ListRollouts")).rollouts
    started = await operator.rollout("CreateRollout", rollout=a_rollout())
    assert planned == {agent: wave.index for wave in started.waves for agent in wave.agents}


async def test_a_rehearsal_counts_its_plays_and_reports(served: Any, operator: Operator) -> None:
    await operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment())
    await sync_all(served)
    answers = await operator.stream("RehearseRollout", rollout=a_rollout(), plays=2, first_seed=1)
    assert [answer.plays_done for answer in answers] == [1, 2, 2]
    assert sum(answers[-1].report.outcomes.values()) == 2
    assert not (await operator.rollout("ListRollouts")).rollouts


@pytest.mark.parametrize("method", ["PlanRollout", "RehearseRollout"])
async def test_what_a_start_would_be_refused_for_is_refused_before(operator: Operator, method: str) -> None:
    await operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment())
    for changes, code, reason, field in (
        ({"deployment": "line-3"}, INVALID, "FIELD_INVALID", "rollout.deployment"),
        ({"deployment": "deployments/none"}, MISSING, "RESOURCE_NOT_FOUND", "rollout.deployment"),
        ({"target_version": "models/solar/versions/9"}, MISSING, "RESOURCE_NOT_FOUND", "rollout.target_version"),
        ({"strategy": rollout_pb2.RolloutStrategy(waves=["1"])}, INVALID, "FIELD_INVALID", "rollout.strategy.waves"),
    ):
        refusal = await refused(operator.stream(method, rollout=a_rollout(**changes)))
        assert (refusal.code, refusal.reason, refusal.field) == (code, reason, field), refusal.message
        assert refusal.remedy


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"plays": -1}, "plays"),
        ({"assumptions": {"message_loss_per_mille": 1001}}, "assumptions.message_loss_per_mille"),
        ({"assumptions": {"errors_per_mille": -1}}, "assumptions.errors_per_mille"),
        ({"assumptions": {"restarts_per_day": float("nan")}}, "assumptions.restarts_per_day"),
        ({"assumptions": {"outage": Duration(seconds=-1)}}, "assumptions.outage"),
        ({"assumptions": {"outage": Duration(seconds=1 << 62)}}, "assumptions.outage"),
    ],
)
async def test_a_rehearsal_of_the_impossible_is_refused(operator: Operator, fields: dict[str, Any], field: str) -> None:
    await operator.deployment("CreateDeployment", deployment_id="line-3", deployment=a_deployment())
    refusal = await refused(operator.stream("RehearseRollout", rollout=a_rollout(), **fields))
    assert (refusal.code, refusal.reason, refusal.field) == (INVALID, "FIELD_INVALID", field)
    assert refusal.remedy
