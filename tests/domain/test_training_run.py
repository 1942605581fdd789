"""Training runs: only transitions of the table happen, each with who or which rule decided it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.errors import PreconditionError, Reason
from controlplane.domain.training_run import (
    ENDED_STATES,
    Progress,
    TrainingRun,
    TrainingState,
    TrainingStep,
    begin,
    cancel,
    cancelled,
    delay,
    deliver,
    fail,
    judged,
    lose,
    report,
    retry,
)
from tests.support.factories import after_seconds, digest_of
from tests.support.training import make_candidate, make_run

NOW = after_seconds(10)
ANNA = "operators/anna"
Q, R, J, S, F, C = TrainingState

STEPS: dict[str, Callable[[TrainingRun], TrainingStep]] = {
    "begin": lambda run: begin(run, NOW, runner="here", warnings=("w",)),
    "report": lambda run: TrainingStep(run=report(run, Progress(fraction=0.5, message="half"), NOW)),
    "delay": lambda run: TrainingStep(run=delay(run, NOW, message="it waits: the disk is full")),
    "deliver": lambda run: deliver(run, make_candidate(), NOW, metrics={"auc": 0.9}, log_digest=digest_of("log")),
    "judge": lambda run: judged(run, NOW, reason="PROPOSED", message="better", actor="rules/judgement"),
    "fail": lambda run: fail(run, NOW, reason="CRASHED", message="it crashed"),
    "lose": lambda run: lose(run, NOW, message="restart", attempts_max=3),
    "cancel": lambda run: cancel(run, NOW, actor=ANNA),
    "cancelled": lambda run: cancelled(run, NOW, actor=ANNA),
    "retry": lambda run: retry(run, NOW, actor=ANNA),
}
TABLE: dict[tuple[TrainingState, str], set[TrainingState]] = {
    (Q, "begin"): {R},
    (Q, "delay"): {Q},
    (R, "delay"): {R},
    (Q, "fail"): {F},
    (Q, "cancel"): {C},
    (Q, "cancelled"): {C},
    (R, "report"): {R},
    (R, "deliver"): {J},
    (R, "fail"): {F},
    (R, "lose"): {Q, F},
    (R, "cancel"): {R},
    (R, "cancelled"): {C},
    (J, "judge"): {S},
    (J, "fail"): {F},
    (J, "cancel"): {C},
    (J, "cancelled"): {C},
    (F, "retry"): {Q},
    (C, "retry"): {Q},
    (C, "cancel"): {C},
}


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=30))
def test_only_transitions_of_the_table_happen_and_each_is_written_down(names: list[str]) -> None:
    run = make_run()
    for name in names:
        allowed = TABLE.get((run.state, name))
        if allowed is None and not (name == "cancel" and run.cancel_actor):
            with pytest.raises(PreconditionError) as refusal:
                STEPS[name](run)
            assert refusal.value.reason is Reason.TRAINING_STATE
            continue
        step = STEPS[name](run)
        allowed = allowed or {run.state}
        assert step.run.state in allowed
        assert step.run.attempt - run.attempt in {0, 1}
        assert (step.run.attempt > run.attempt) == (step.run.state is Q and run.state is not Q)
        assert (step.run.end_time is not None) == (step.run.state in ENDED_STATES)
        assert bool(step.happenings) == (step.run != run and name not in {"report", "delay"})
        assert all(happening.resource == run.name and happening.actor for happening in step.happenings)
        if step.run.state in {J, S}:
            assert step.run.candidate is not None
        if step.run.state in {Q, R}:
            assert step.run.candidate is None
            assert not step.run.reason
        run = step.run


def test_a_lost_run_is_tried_again_until_its_attempts_are_used_up() -> None:
    run = make_run(state=R, runner="here", attempt=1, progress=Progress(fraction=0.5, message=""))
    first = lose(run, NOW, message="restart", attempts_max=2).run
    assert (first.state, first.attempt, first.runner, first.progress) == (Q, 2, "", None)
    assert first.warnings == ("attempt 1 was lost: restart",)
    last = lose(replace(first, state=R), NOW, message="restart", attempts_max=2).run
    assert (last.state, last.reason) == (F, "LOST")
    assert first.job_id != run.job_id


def test_a_running_run_is_cancelled_when_its_trainer_has_ended() -> None:
    noted = cancel(make_run(state=R), NOW, actor=ANNA)
    assert (noted.run.state, noted.run.cancel_actor) == (R, ANNA)
    assert cancel(noted.run, NOW, actor="operators/ben") == TrainingStep(run=noted.run)
    ended = cancelled(noted.run, NOW, actor=noted.run.cancel_actor, log_digest=digest_of("log")).run
    assert (ended.state, ended.cancel_actor, ended.log_digest) == (C, "", digest_of("log"))


def test_progress_that_is_no_news_changes_nothing() -> None:
    half = Progress(fraction=0.5, message="half")
    run = make_run(state=R, progress=half)
    assert report(run, half, NOW) is run
    assert report(run, None, NOW) is run


@pytest.mark.parametrize("state", sorted(ENDED_STATES))
def test_what_has_ended_stays_ended_unless_it_is_tried_again(state: TrainingState) -> None:
    run: Any = make_run(state=state)
    for name in set(STEPS) - {"retry", "cancel"}:
        with pytest.raises(PreconditionError, match=str(state)):
            STEPS[name](run)
