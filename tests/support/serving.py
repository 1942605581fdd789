"""Fakes around the serving path: a model that computes in numpy, and records of what was kept and offered."""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from agent.app.ports import Tensor
from agent.domain.artifact import Artifact, ModelSignature, TensorSpec
from agent.domain.device import RuntimePolicy
from agent.domain.errors import Reason, RequestError, StateError
from agent.domain.result import Result
from agent.domain.shadow import Comparison, ShadowPair
from agent.domain.slot import DesiredSlot, SamplePolicy

SIGNATURE = ModelSignature(
    entry_path="model.xml",
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),),
    outputs=(TensorSpec(name="scores", datatype="FP32", shape=(-1, 2)),),
    rt_info={"model_info/labels": "ok defect"},
)


def desired_slot(
    version: int, *, slot: str = "cells", signature: ModelSignature = SIGNATURE, budget_bytes_per_day: int = 0
) -> DesiredSlot:
    return DesiredSlot(
        slot=slot,
        version=version,
        deployment="all",
        artifact=Artifact(digest=f"sha256:{version:064x}", files=()),
        signature=signature,
        runtime_policy=RuntimePolicy(),
        sample_policy=SamplePolicy(
            random_fraction=0.0, confidence_below=0.0, budget_bytes_per_day=budget_bytes_per_day
        ),
    )


class FakeModel:
    """Answers [1 - score, score] for every item, and notices when it is used after `close`."""

    def __init__(
        self,
        *,
        score: float = 0.75,
        signature: ModelSignature = SIGNATURE,
        fails: bool = False,
        busy: bool = False,
        during: Callable[[], None] = lambda: None,
    ) -> None:
        self._score = score
        self._signature = signature
        self._fails = fails
        self._busy = busy
        self._during = during
        self.closed = 0

    device = "FAKE"
    optimal_requests = 2

    @property
    def signature(self) -> ModelSignature:
        return self._signature

    def infer(self, inputs: Mapping[str, Tensor], **_: object) -> Mapping[str, Tensor]:
        assert not self.closed, "an infer after close"
        if self._busy:
            raise RequestError("busy", reason=Reason.QUEUE_FULL)
        if self._fails:
            raise RequestError("the device is gone", reason=Reason.INFERENCE_FAILED)
        self._during()
        assert not self.closed, "closed under an infer"
        items = next(iter(inputs.values())).shape[0]
        return {"scores": np.tile(np.array([1 - self._score, self._score], np.float32), (items, 1))}

    def close(self) -> None:
        self.closed += 1


class MemoryResults:
    """A result log in memory, which can be told to have no disk."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.refused: list[tuple[str, int]] = []
        self.disk_full = False
        self._changed = threading.Condition()

    def append(self, results: Sequence[Result]) -> None:
        if self.disk_full:
            raise StateError("no space left", reason=Reason.STATE_UNWRITABLE)
        with self._changed:
            self.results.extend(results)
            self._changed.notify_all()

    def count_refused(self, slot: str, version: int) -> None:
        with self._changed:
            self.refused.append((slot, version))

    def wait_for_more(self, count: int) -> None:
        """Until `count` more results are here than now."""
        with self._changed:
            wanted = len(self.results) + count
            assert self._changed.wait_for(lambda: len(self.results) >= wanted, timeout=20)


class MemoryOffers:
    """Sample offers in memory; `results_seen` counts the results that were kept before each offer."""

    def __init__(self, results: MemoryResults) -> None:
        self._results = results
        self.offers: list[tuple[Mapping[str, Tensor], Sequence[Result], SamplePolicy]] = []
        self.results_seen: list[int] = []

    def offer(self, inputs: Mapping[str, Tensor], results: Sequence[Result], policy: SamplePolicy) -> None:
        self.results_seen.append(len(self._results.results))
        self.offers.append((inputs, results, policy))

    def offer_disagreement(
        self, inputs: Mapping[str, Tensor], results: Sequence[Result], index: int, policy: SamplePolicy
    ) -> None:
        self.offers.append((inputs, (results[index],), policy))


class NoSamples:
    """`agent.app.ports.SampleOffers` of a box that keeps nothing; remembers on what a candidate disagreed."""

    def __init__(self) -> None:
        self.disagreements: list[Result] = []

    def offer(self, inputs: Mapping[str, Tensor], results: Sequence[Result], policy: SamplePolicy) -> None:
        return

    def offer_disagreement(
        self, inputs: Mapping[str, Tensor], results: Sequence[Result], index: int, policy: SamplePolicy
    ) -> None:
        self.disagreements.append(results[index])


class MemoryComparisons:
    """What shadow runs found, in memory."""

    def __init__(self) -> None:
        self.comparisons: list[Comparison] = []
        self.skipped: list[tuple[ShadowPair, int]] = []

    def append_comparisons(self, comparisons: Sequence[Comparison]) -> None:
        self.comparisons.extend(comparisons)

    def count_skipped(self, pair: ShadowPair, time: datetime, count: int) -> None:
        self.skipped.append((pair, count))


class NoShadows:
    """`agent.app.ports.ShadowOffers` of a box without candidates."""

    def offer(self, inputs: Mapping[str, Tensor], results: Sequence[Result]) -> None:
        return


class SteppingClock:
    """A millisecond passes at each look."""

    def __init__(self) -> None:
        self._steps = itertools.count()

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return next(self._steps) / 1000

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("serving never sleeps")


class RealClock:
    """The box's own time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("serving never sleeps")
