"""When a trigger fires: never beside another run, never on what was trained on, never too soon."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.training_policy import TrainingPolicy, Trigger, TriggerFacts, find_trigger
from tests.support.factories import NOW
from tests.support.judging import make_policy

EVERYTHING = make_policy(min_new_labels=10, on_drift=True, cron="0 2 * * *", minimum_interval_seconds=3600.0)
times = st.one_of(st.none(), st.integers(-7200, 7200).map(lambda seconds: NOW + timedelta(seconds=seconds)))
policies = st.builds(
    make_policy,
    suspended=st.booleans(),
    min_new_labels=st.integers(0, 20),
    on_drift=st.booleans(),
    drift_min_new_labels=st.integers(1, 20),
    minimum_interval_seconds=st.sampled_from([0.0, 60.0, 3600.0]),
)
facts = st.builds(
    TriggerFacts,
    labels=st.integers(0, 40),
    new_labels=st.integers(0, 40),
    unended_run=st.sampled_from(["", "trainingRuns/r1"]),
    open_proposal=st.sampled_from(["", "trainingRuns/r1"]),
    last_run_time=times,
    cron_time=times,
    drifted=st.sampled_from([(), ("agents/st-1",)]),
)


@given(policies, facts)
def test_nothing_fires_that_must_not(policy: TrainingPolicy, known: TriggerFacts) -> None:
    found = find_trigger(policy, known, NOW)
    assert found.message
    if found.trigger is None:
        return
    assert not policy.suspended
    assert not known.unended_run
    assert not known.open_proposal
    assert known.new_labels > 0
    if known.last_run_time is not None:
        assert NOW - known.last_run_time >= timedelta(seconds=policy.minimum_interval_seconds)


@given(policies, facts)
def test_each_trigger_has_what_it_asks_for(policy: TrainingPolicy, known: TriggerFacts) -> None:
    match find_trigger(policy, known, NOW).trigger:
        case Trigger.DRIFT:
            assert policy.on_drift
            assert known.drifted
            assert known.new_labels >= policy.drift_min_new_labels
        case Trigger.LABELS:
            assert 0 < policy.min_new_labels <= known.new_labels
        case Trigger.CRON:
            assert known.cron_time is not None
            assert known.cron_time <= NOW
        case None:
            pass


@pytest.mark.parametrize(
    ("known", "trigger"),
    [
        (TriggerFacts(labels=10, new_labels=10), Trigger.LABELS),
        (TriggerFacts(labels=10, new_labels=9), None),
        (TriggerFacts(labels=10, new_labels=1, drifted=("agents/st-1",)), Trigger.DRIFT),
        (TriggerFacts(labels=10, new_labels=0, drifted=("agents/st-1",), cron_time=NOW), None),
        (TriggerFacts(labels=10, new_labels=1, cron_time=NOW), Trigger.CRON),
        (TriggerFacts(labels=10, new_labels=1, cron_time=NOW + timedelta(seconds=1)), None),
        (TriggerFacts(labels=90, new_labels=90, last_run_time=NOW - timedelta(minutes=59)), None),
        (TriggerFacts(labels=90, new_labels=90, last_run_time=NOW - timedelta(minutes=60)), Trigger.LABELS),
    ],
)
def test_it_fires_when_its_time_has_come(known: TriggerFacts, trigger: Trigger | None) -> None:
    assert find_trigger(EVERYTHING, known, NOW).trigger is trigger


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (TriggerFacts(labels=3, new_labels=3, unended_run="trainingRuns/r9"), "trainingRuns/r9 has not ended"),
        (TriggerFacts(labels=3, new_labels=3, open_proposal="trainingRuns/r9"), "candidate of trainingRuns/r9 waits"),
        (TriggerFacts(labels=3, new_labels=0), "no sample was labelled since the last run; 3 are labelled"),
        (TriggerFacts(labels=9, new_labels=3), "3 of 9 labelled samples are new; 10 are needed; no drift is flagged"),
        (
            TriggerFacts(labels=9, new_labels=9, drifted=tuple(f"agents/st-{number}" for number in range(5))),
            "inputs have drifted at agents/st-0, agents/st-1, agents/st-2 and 2 more, and 9 of 9",
        ),
    ],
)
def test_it_says_why(known: TriggerFacts, words: str) -> None:
    assert words in find_trigger(EVERYTHING, known, NOW).message
