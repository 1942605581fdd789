"""Which results are reported one by one: windows count all of them whatever the policy says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lineside.v1 import evidence_pb2, slot_pb2

from agent.app.ports import EvidenceBatch
from agent.app.result_selection import selected
from agent.domain.result import LabelScore, Outcome
from agent.domain.result_policy import ResultKeep, ResultPolicy
from agent.rpc import convert
from agent.storage.result_log import DiskResultLog
from tests.agent.storage.test_result_log import result as stored_result
from tests.support.clock import LoopClock

DOUBTFUL = ResultPolicy(keep=ResultKeep.DOUBTFUL, good_labels=("good", "ok"), good_score_min=0.9)


def batch_of(*results: Any, number: int = 7) -> EvidenceBatch:
    return EvidenceBatch(number=number, windows=(), results=results)


def result(**overrides: Any) -> Any:
    return replace(stored_result(), **overrides)


def rated(label: str, score: float, **overrides: Any) -> Any:
    return result(labels=(LabelScore(label=label, score=score),), **overrides)


def parts(batch: EvidenceBatch) -> list[str]:
    return [each.part_id for each in batch.results]


def test_all_results_are_kept_by_default() -> None:
    batch = batch_of(rated("good", 1.0), rated("defect", 0.1))
    assert selected(batch, lambda _: ResultPolicy()) is batch


def test_all_but_the_confident_good_are_kept() -> None:
    batch = batch_of(
        rated("good", 0.9, part_id="confident"),
        rated("ok", 0.95, part_id="confident-too"),
        rated("good", 0.89, part_id="doubtful"),
        rated("defect", 0.99, part_id="bad"),
        result(part_id="without-label", labels=()),
        result(part_id="failed", labels=(), outcome=Outcome.ERROR, error="no"),
    )
    kept = selected(batch, lambda _: DOUBTFUL)
    assert parts(kept) == ["doubtful", "bad", "without-label", "failed"]
    assert kept.omitted_results == 2


def test_one_in_so_many_is_drawn_evenly_and_every_failure_is_kept() -> None:
    policy = ResultPolicy(keep=ResultKeep.ONE_IN, one_in=10)
    batches = [batch_of(*(rated("good", 1.0) for _ in range(1000)), number=number) for number in range(5)]
    counts = [len(selected(batch, lambda _: policy).results) for batch in batches]
    assert 400 < sum(counts) < 600
    assert min(counts) > 50
    failed = batch_of(*(result(labels=(), outcome=Outcome.ERROR, error="no") for _ in range(50)))
    assert selected(failed, lambda _: policy).results == failed.results


def test_a_batch_that_is_sent_again_is_the_same_batch() -> None:
    policy = ResultPolicy(keep=ResultKeep.ONE_IN, one_in=3)
    batch = batch_of(*(rated("good", 1.0, part_id=str(number)) for number in range(100)))
    assert selected(batch, lambda _: policy) == selected(batch, lambda _: policy)


def test_each_slot_has_its_own_policy() -> None:
    batch = batch_of(rated("good", 1.0, slot="solar"), rated("good", 1.0, slot="weld"))
    kept = selected(batch, lambda slot: DOUBTFUL if slot == "solar" else ResultPolicy())
    assert [each.slot for each in kept.results] == ["weld"]


def test_windows_count_what_is_left_out(tmp_path: Path) -> None:
    log = DiskResultLog(tmp_path, clock=LoopClock())
    log.append([rated("good", 0.99) for _ in range(20)] + [rated("defect", 0.7)])
    log.seal(force=True)
    (number,) = log.pending()
    batch = selected(log.read(number), lambda _: DOUBTFUL)
    windows = [evidence_pb2.MetricWindow.FromString(window) for window in batch.windows]
    assert sum(window.inference_count for window in windows) == 21
    assert (len(batch.results), batch.omitted_results) == (1, 20)
    request = convert.evidence_request(batch)
    assert (len(request.results), request.omitted_results) == (1, 20)


def test_each_window_tells_how_many_of_its_results_are_left_out(tmp_path: Path) -> None:
    log = DiskResultLog(tmp_path, clock=LoopClock())
    log.append([rated("good", 0.99, version=1) for _ in range(3)] + [rated("good", 0.5, version=1)])
    log.append([rated("good", 0.99, version=2) for _ in range(5)] + [rated("good", 0.99, slot="weld", version=1)])
    log.seal(force=True)
    (number,) = log.pending()
    batch = selected(log.read(number), lambda slot: ResultPolicy() if slot == "weld" else DOUBTFUL)
    windows = [evidence_pb2.MetricWindow.FromString(window) for window in batch.windows]
    told = {window.model_version: (window.inference_count, window.omitted_count) for window in windows}
    slot = rated("good", 1.0).slot
    assert told == {
        f"models/{slot}/versions/1": (4, 3),
        f"models/{slot}/versions/2": (5, 5),
        "models/weld/versions/1": (1, 0),
    }
    assert batch.omitted_results == 8


@pytest.mark.parametrize(
    ("message", "policy"),
    [
        (slot_pb2.ResultPolicy(), ResultPolicy()),
        (slot_pb2.ResultPolicy(keep=slot_pb2.ResultPolicy.KEEP_ALL), ResultPolicy()),
        (slot_pb2.ResultPolicy(keep=99), ResultPolicy()),  # type: ignore[arg-type]
        (
            slot_pb2.ResultPolicy(
                keep=slot_pb2.ResultPolicy.KEEP_DOUBTFUL, good_labels=["good", "ok"], good_score_min=0.9
            ),
            DOUBTFUL,
        ),
        (
            slot_pb2.ResultPolicy(keep=slot_pb2.ResultPolicy.KEEP_ONE_IN, one_in=4),
            ResultPolicy(keep=ResultKeep.ONE_IN, one_in=4),
        ),
    ],
)
def test_what_is_not_known_keeps_all(message: slot_pb2.ResultPolicy, policy: ResultPolicy) -> None:
    assert convert.result_policy(message) == policy
