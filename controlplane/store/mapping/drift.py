"""Drifts."""

from types import MappingProxyType
from typing import Any

from controlplane.domain.drift import Block, Drift, DriftState
from controlplane.domain.drift_evidence import LOG_SCALE, Check, Counts, StatisticTest
from controlplane.domain.ids import AgentId, ModelId
from controlplane.store.mapping.values import Row


def drift_to_row(drift: Drift) -> dict[str, Any]:
    """The reference apart from what moves with every block."""
    batch, last_time = drift.place
    return {
        "agent_id": drift.agent_id,
        "model_id": drift.model_id,
        "version": drift.version,
        "state": drift.state.value,
        "transition_time": drift.transition_time,
        "message": drift.message,
        "serving": drift.serving,
        "last_batch": batch,
        "last_time": last_time,
        "start_time": drift.start_time,
        "inference_count": drift.inference_count,
        "reference_count": drift.reference_count,
        "episode_count": drift.episode_count,
        "learned": [_block_to_json(block) for block in drift.learned],
        "progress": {
            "block_number": drift.block_number,
            "pending": _block_to_json(drift.pending),
            "recent": [_block_to_json(block) for block in drift.recent],
            "tests": {name: _test_to_json(test) for name, test in drift.tests.items()},
        },
        "revision": drift.revision,
    }


def drift_from_row(row: Row) -> Drift:
    progress = row["progress"]
    older, newer = progress["recent"]
    tests = {name: _test_from_json(test) for name, test in sorted(progress["tests"].items())}
    return Drift(
        agent_id=AgentId(row["agent_id"]),
        model_id=ModelId(row["model_id"]),
        version=row["version"],
        state=DriftState(row["state"]),
        transition_time=row["transition_time"],
        message=row["message"],
        serving=row["serving"],
        place=(row["last_batch"], row["last_time"]),
        start_time=row["start_time"],
        inference_count=row["inference_count"],
        reference_count=row["reference_count"],
        episode_count=row["episode_count"],
        block_number=progress["block_number"],
        pending=_block_from_json(progress["pending"]),
        learned=tuple(map(_block_from_json, row["learned"])),
        tests=MappingProxyType(tests),
        recent=(_block_from_json(older), _block_from_json(newer)),
        revision=row["revision"],
    )


def _block_to_json(block: Block) -> list[Any]:
    return [block.inferences, {name: _counts_to_json(counts) for name, counts in block.counts.items()}]


def _block_from_json(value: list[Any]) -> Block:
    inferences, counts = value
    if not inferences:
        return Block()
    return Block(
        inferences=inferences,
        counts=MappingProxyType({name: _counts_from_json(one) for name, one in sorted(counts.items())}),
    )


def _counts_to_json(counts: Counts) -> list[Any]:
    """Without the empty bins at both ends: of 32 a third is used."""
    bins = counts.bins
    first = next((place for place, count in enumerate(bins) if count), len(bins))
    last = next((place for place in range(len(bins), first, -1) if bins[place - 1]), first)
    return [list(counts.labels), counts.low, counts.high, len(bins), first, list(bins[first:last])]


def _counts_from_json(value: list[Any]) -> Counts:
    labels, low, high, size, first, bins = value
    whole = (*(0,) * first, *bins, *(0,) * (size - first - len(bins)))
    return Counts(labels=tuple(labels), low=low, high=high, bins=whole)


def _test_to_json(test: StatisticTest) -> list[Any]:
    checks = [
        [check.event, check.share, check.low, check.high, _logs_to_json(check.below), _logs_to_json(check.above)]
        for check in test.checks
    ]
    return [test.dispersion, checks]


def _test_from_json(value: list[Any]) -> StatisticTest:
    dispersion, checks = value
    return StatisticTest(dispersion=dispersion, checks=tuple(map(_check_from_json, checks)))


def _check_from_json(value: list[Any]) -> Check:
    event, share, low, high, below, above = value
    return Check(
        event=event, share=share, low=low, high=high, below=_logs_from_json(below), above=_logs_from_json(above)
    )


def _logs_to_json(logs: tuple[float, ...]) -> list[int]:
    """They are whole thousandths; as such they take half the space."""
    return [round(log * LOG_SCALE) for log in logs]


def _logs_from_json(value: list[int]) -> tuple[float, ...]:
    return tuple([log / LOG_SCALE for log in value])
