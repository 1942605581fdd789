"""Rows and entities map both ways without loss."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.assignment import DesiredSlot, DesiredState, ShadowRun
from controlplane.domain.audit import AuditEvent, Happening
from controlplane.domain.catalog import Artifact, ArtifactFile, Model, ModelSignature, ModelVersion, TensorSpec, Yank
from controlplane.domain.condition import Condition
from controlplane.domain.deployment import Deployment, RedactedRegion, RuntimePolicy, SamplePolicy
from controlplane.domain.evidence import EvidenceBatch, Histogram, LabelScore, LatencySketch, MetricWindow, Result
from controlplane.domain.gate import Evidence, GateCheck, GatePolicy, GateVerdict
from controlplane.domain.identity import AgentCertificate, JoinToken, OperatorToken
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import (
    Agent,
    AgentRecord,
    Device,
    DeviceMeasurement,
    Host,
    Observation,
    ObservedShadow,
    ObservedSlot,
    ObservedState,
)
from controlplane.domain.pin import Pin
from controlplane.domain.rollout import (
    MaintenanceWindow,
    Release,
    Rollout,
    RolloutStrategy,
    ShadowPolicy,
    Wave,
    WaveState,
)
from controlplane.domain.sample import Sample
from controlplane.store import tables
from controlplane.store.mapping import (
    assignment,
    audit,
    catalog,
    deployment,
    evidence,
    identity,
    inventory,
    pin,
    rollout,
    sample_policy,
)
from controlplane.store.mapping.values import EncodedJson, encode_json, float_from_json, float_to_json
from tests.support.factories import after_seconds, digest_of, make_rollout, make_wave

text = st.text(max_size=8)
texts = st.dictionaries(text, text, max_size=3)
times = st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1))  # noqa: DTZ001
seconds = times.map(lambda time: time.replace(microsecond=0))
floats = st.floats(allow_nan=False)
digests = text.map(digest_of)


def tuples_of(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=3).map(tuple)


files = st.builds(
    ArtifactFile,
    path=st.from_regex(r"[a-z0-9_-]{1,6}(/[a-z0-9_-]{1,6})?", fullmatch=True),
    digest=digests,
    size_bytes=st.integers(min_value=0),
    chunk_digests=tuples_of(st.binary(min_size=32, max_size=32)),
)
artifacts = st.lists(files, min_size=1, max_size=3, unique_by=lambda file: file.path).map(
    lambda listed: Artifact(files=tuple(sorted(listed, key=lambda file: file.path)))
)
signatures = st.builds(
    ModelSignature,
    inputs=tuples_of(st.builds(TensorSpec)),
    outputs=tuples_of(st.builds(TensorSpec)),
    rt_info=texts,
)
versions = st.builds(
    ModelVersion,
    create_time=times,
    artifact=artifacts,
    signature=signatures,
    yank=st.none() | st.builds(Yank, time=times),
)
runtime_policies = st.builds(RuntimePolicy, inference_precision=st.sampled_from(["", "f32", "bf16", "f16"]))
sample_policies = st.builds(
    SamplePolicy,
    random_fraction=st.floats(0, 1),
    confidence_below=st.floats(0, 1),
    budget_bytes_per_day=st.integers(min_value=0),
    margin_below=st.floats(0, 1),
    entropy_above=st.floats(0, 1),
    class_quota_per_day=st.dictionaries(st.text(max_size=5), st.integers(0, 9)),
    outlier_above=st.floats(0, 99),
    near_duplicate_distance=st.none() | st.integers(0, 63),
    budget_images_per_day=st.integers(min_value=0),
    redaction=tuples_of(
        st.builds(
            RedactedRegion,
            x=st.floats(0, 0.5),
            y=st.floats(0, 0.5),
            width=st.floats(0.1, 0.5),
            height=st.floats(0.1, 0.5),
        )
    ),
)
conditions = st.builds(Condition, transition_time=times)
observed_slots = st.builds(
    ObservedSlot,
    measurements=tuples_of(
        st.builds(DeviceMeasurement, latency_ms_p50=floats, throughput_per_second=floats, compile_seconds=floats)
    ),
    serving_time=st.none() | times,
    shadow=st.none() | st.builds(ObservedShadow),
)
observations = st.builds(
    Observation,
    observed=st.builds(
        ObservedState, slots=tuples_of(observed_slots), conditions=tuples_of(conditions), agent_time=st.none() | times
    ),
    receive_time=times,
    host=st.none() | st.builds(Host),
    devices=st.none() | tuples_of(st.builds(Device, properties=texts)),
)
checks = st.builds(GateCheck, observed=floats, low=floats, high=floats, limit=floats)
verdicts = st.builds(
    GateVerdict, evidence=st.builds(Evidence, wave_age_seconds=floats), evaluate_time=times, checks=tuples_of(checks)
)
releases = tuples_of(st.builds(Release, agent_id=text, time=seconds))
waves = st.builds(
    Wave,
    admit_time=st.none() | times,
    complete_time=st.none() | times,
    verdict=st.none() | verdicts,
    releases=releases,
    approve_time=st.none() | times,
    shadow_time=st.none() | times,
)
strategies = st.builds(
    RolloutStrategy,
    bake_seconds=floats,
    deadline_seconds=floats,
    install_seconds_max=floats,
    offline_wait_seconds=floats,
    gate=st.builds(GatePolicy, max_latency_ms_p95=floats, max_latency_ms_p99=floats, idle_seconds=floats),
    windows=tuples_of(st.builds(MaintenanceWindow, duration_seconds=floats)),
    shadow=st.none() | st.builds(ShadowPolicy, serving_latency_ms_p99_max=floats),
)
rollouts = st.builds(
    Rollout,
    create_time=times,
    update_time=times,
    strategy=strategies,
    waves=tuples_of(waves),
    end_time=st.none() | times,
    prefetches=releases,
)
results = st.builds(Result, infer_time=times, labels=tuples_of(st.builds(LabelScore, score=floats)))
sketches = st.builds(
    LatencySketch,
    relative_accuracy=floats,
    sum_ms=floats,
    min_ms=floats,
    max_ms=floats,
    bin_counts=tuples_of(st.integers()),
)
windows = st.builds(
    MetricWindow,
    start_time=times,
    end_time=times,
    latency=sketches,
    input_statistics=st.dictionaries(
        text, st.builds(Histogram, low=st.floats(-9, 9), high=st.floats(-9, 9)), max_size=2
    ),
    omitted_count=st.integers(0, 1 << 40),
)
samples = st.builds(
    Sample,
    capture_time=times,
    create_time=times,
    digest=digests,
    result=results,
    value=st.floats(0, 1),
    input_statistics=st.dictionaries(text, st.floats(-9, 9), max_size=2),
    label_hint=text,
)
desired_states = st.builds(
    DesiredState,
    slots=tuples_of(
        st.builds(
            DesiredSlot,
            runtime_policy=runtime_policies,
            sample_policy=sample_policies,
            shadow=st.none() | st.builds(ShadowRun, serving_latency_ms_p99_max=floats),
        )
    ),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats.filter(math.isfinite) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
events = st.builds(
    AuditEvent,
    create_time=times,
    happening=st.builds(Happening, evidence=st.dictionaries(text, json_values, max_size=3), related=tuples_of(text)),
)


def stored(table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as the table gives it back: every column there but those that the database counts, and JSON through text
    that any JSON reader takes."""
    counted = {tables.result: {"arrival"}, tables.observation: {"change"}}.get(table, set())
    given = {column.name for column in table.columns} - counted
    assert set(row) == given
    return {name: read_json(value) if isinstance(table.c[name].type, sa.JSON) else value for name, value in row.items()}


def read_json(value: Any) -> Any:
    text = value.text if isinstance(value, EncodedJson) else json.dumps(value, allow_nan=False)
    assert encode_json(value) == text
    return json.loads(text, parse_constant=pytest.fail)


@given(st.builds(Model, create_time=times))
def test_models(model: Model) -> None:
    assert catalog.model_from_row(stored(tables.model, catalog.model_to_row(model))) == model


@given(versions)
def test_versions(version: ModelVersion) -> None:
    assert catalog.version_from_row(stored(tables.model_version, catalog.version_to_row(version))) == version


@given(versions)
def test_a_version_has_one_blob_a_distinct_file_content(version: ModelVersion) -> None:
    rows = [stored(tables.version_blob, row) for row in catalog.version_to_blob_rows(version)]
    assert sorted(row["digest"] for row in rows) == sorted({file.digest for file in version.artifact.files})
    assert {(row["model_id"], row["number"]) for row in rows} == {(version.model_id, version.number)}


@given(st.builds(Agent, create_time=times, labels=texts), st.none() | observations, st.none() | times)
def test_agent_records(agent: Agent, observation: Observation | None, expire_time: datetime | None) -> None:
    row = stored(tables.agent, inventory.agent_to_row(agent))
    assert inventory.agent_from_row(row) == agent
    unheard = dict.fromkeys(("observed", "receive_time", "host", "devices"))
    heard = (
        unheard
        if observation is None
        else stored(tables.observation, inventory.observation_to_row(observation, inventory.SlotTexts()))
    )
    joined = {**heard, **row, "desired_generation": 3, "certificate_expire_time": expire_time}
    record = inventory.record_from_row(joined)
    assert record.agent == agent
    assert (record.desired_generation, record.certificate_expire_time) == (3, expire_time)
    assert (record.observation is None) == (observation is None)
    if observation is not None:
        assert isinstance(record, AgentRecord)
        assert inventory.observation_from_row({**heard, "agent_id": observation.agent_id}) == observation


@given(st.lists(observations, min_size=2, max_size=4))
def test_what_an_agent_says_next_is_written_as_it_says_it(said: list[Observation]) -> None:
    texts = inventory.SlotTexts()
    for observation in (*said, *said):
        one = replace(observation, agent_id=AgentId("st-1"))
        row = stored(tables.observation, inventory.observation_to_row(one, texts))
        assert inventory.observation_from_row(row) == one
        again = replace(one, observed=replace(one.observed, generation=7))
        row = stored(tables.observation, inventory.observation_to_row(again, texts))
        assert inventory.observation_from_row(row) == again


@given(st.builds(JoinToken, create_time=times, expire_time=times, labels=texts))
def test_join_tokens(token: JoinToken) -> None:
    assert identity.join_token_from_row(stored(tables.join_token, identity.join_token_to_row(token))) == token


@given(st.builds(OperatorToken, create_time=times))
def test_operator_tokens(token: OperatorToken) -> None:
    assert (
        identity.operator_token_from_row(stored(tables.operator_token, identity.operator_token_to_row(token))) == token
    )


@given(st.builds(AgentCertificate, not_before=times, expire_time=times))
def test_certificates(certificate: AgentCertificate) -> None:
    row = stored(tables.agent_certificate, identity.certificate_to_row(certificate))
    assert identity.certificate_from_row(row) == certificate


@given(
    st.builds(
        Deployment,
        create_time=times,
        update_time=times,
        runtime_policy=runtime_policies,
        sample_policy=sample_policies,
        kept_versions=st.dictionaries(text, st.integers(), max_size=3),
        conditions=tuples_of(conditions),
    )
)
def test_deployments(one: Deployment) -> None:
    assert deployment.deployment_from_row(stored(tables.deployment, deployment.deployment_to_row(one))) == one


@given(rollouts)
def test_rollouts(one: Rollout) -> None:
    assert rollout.rollout_from_row(stored(tables.rollout, rollout.rollout_to_row(one))) == one


def test_a_wave_of_the_release_before_was_given_to_all_of_its_agents_when_it_was_admitted() -> None:
    admitted = make_wave(
        agents=("st-1", "st-2"), state=WaveState.PASSED, admit_time=after_seconds(1).replace(microsecond=123)
    )
    pending = make_wave(index=1, agents=("st-3",))
    row = stored(tables.rollout, rollout.rollout_to_row(make_rollout(waves=(admitted, pending))))
    of_before = {"index", "size", "agents", "state", "admit_time", "complete_time", "verdict"}
    row["waves"] = [{key: value for key, value in wave.items() if key in of_before} for wave in row["waves"]]
    row["strategy"] = {
        "waves": [{"count": 1, "percent": None}],
        "bake_seconds": 5.0,
        "gate": {"min_inferences": 1, "max_errors_per_mille": 2, "max_failed_installs": 3, "on_failure": "PAUSE"},
    }
    # What the database fills in.
    row |= {"creator": "", "related_id": None, "prefetches": {}}
    read = rollout.rollout_from_row(row)
    assert [(one.agent_id, one.time) for one in read.waves[0].releases] == [
        ("st-1", after_seconds(1)),
        ("st-2", after_seconds(1)),
    ]
    assert read.waves[1].releases == ()
    assert (read.creator, read.related_id, read.prefetches) == ("", None, ())
    defaults = RolloutStrategy(waves=read.strategy.waves)
    assert replace(read.strategy, bake_seconds=0.0, gate=defaults.gate) == defaults
    gate = read.strategy.gate
    assert (gate.min_inferences, gate.max_errors_per_mille, gate.max_failed_installs) == (1, 2, 3)
    assert gate.confidence_per_mille == GatePolicy().confidence_per_mille


@given(events)
def test_audit_events(event: AuditEvent) -> None:
    assert audit.event_from_row(stored(tables.audit_event, audit.event_to_row(event))) == event
    rows = [stored(tables.audit_resource, row) for row in audit.event_to_resource_rows(event)]
    assert {row["resource"] for row in rows} == {event.happening.resource, *event.happening.related}
    assert len(rows) == len({row["resource"] for row in rows})


@given(st.floats(allow_nan=True))
def test_a_number_that_is_none_does_not_hinder_the_log(value: float) -> None:
    happening = Happening(actor="rules/gate", action="wave.fail", resource="rollouts/r", evidence={"a": [{"b": value}]})
    event = AuditEvent(id="uid", create_time=after_seconds(0), happening=happening)
    kept = audit.event_from_row(stored(tables.audit_event, audit.event_to_row(event))).happening.evidence
    assert kept == {"a": [{"b": value if math.isfinite(value) else str(value)}]}


@given(st.builds(Pin, create_time=times))
def test_pins(one: Pin) -> None:
    assert pin.pin_from_row(stored(tables.pin, pin.pin_to_row(one))) == one


def test_a_sample_policy_of_an_earlier_controller_asks_for_no_more_than_it_did() -> None:
    row: dict[str, Any] = {"random_fraction": 0.5, "confidence_below": 0.25, "budget_bytes_per_day": 7}
    assert sample_policy.sample_policy_from_json(row) == SamplePolicy(
        **row, margin_below=0.0, outlier_above=0.0, shadow_disagreement=False, near_duplicate_distance=None
    )


@given(desired_states)
def test_desired_states(desired: DesiredState) -> None:
    row = stored(tables.desired_state, assignment.desired_to_row(desired))
    slot_rows = [stored(tables.desired_slot, slot) for slot in assignment.desired_to_slot_rows(desired)]
    assert assignment.desired_from_rows(row, slot_rows) == desired


@given(windows, times, st.integers(0, 9))
def test_windows(window: MetricWindow, receive_time: datetime, window_index: int) -> None:
    row = evidence.window_to_row(window, window_index=window_index, receive_time=receive_time)
    assert (row["window_index"], row["receive_time"]) == (window_index, receive_time)
    assert evidence.window_from_row(stored(tables.metric_window, row)) == window


@given(samples)
def test_samples(sample: Sample) -> None:
    assert evidence.sample_from_row(stored(tables.sample, evidence.sample_to_row(sample))) == sample


@given(st.builds(EvidenceBatch, receive_time=times, windows=st.just(()), results=st.just(())))
def test_batches_have_a_row_of_their_own(batch: EvidenceBatch) -> None:
    row = stored(tables.evidence_batch, evidence.batch_to_row(batch))
    assert (row["agent_id"], row["batch"], row["dropped_results"]) == (
        batch.agent_id,
        batch.batch,
        batch.dropped_results,
    )


@given(st.floats())
def test_every_float_passes_through_json(value: float) -> None:
    passed = float_from_json(json.loads(json.dumps(float_to_json(value), allow_nan=False)))
    assert passed == value or (passed != passed and value != value)  # noqa: PLR0124
