"""Chooses inputs for training, encodes them off the serving path and puts them on the spool.

Rules kept here:
- `offer` never blocks and never fails: it draws before it touches a lock, copies what was picked, and leaves the rest
  to one thread. Inputs may lie in memory that the application reuses once it is answered, hence the copy.
- What waits to be encoded is bounded by number and bytes; what does not fit is not sampled.
- The day's budgets are spent before a sample is kept, in images and in bytes of content as they go to disk.
- A region to be redacted is never written, and an input of which it cannot be redacted is not kept.
- What was picked and is not kept is counted by why.
"""

import queue
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from agent import limits
from agent.app import conditions
from agent.app.conditions import Conditions
from agent.app.difference_hash import difference_hash
from agent.app.input_statistics import sampled_input
from agent.app.input_watch import InputWatch
from agent.app.ports import Clock, SampleSpool, SpooledSample, Tensor
from agent.app.redaction import Redactor, Unredactable, redact
from agent.app.sample_counts import BUDGET_SKIPS, SampleCounter, Skip
from agent.app.sample_encoding import content_of, description, fingerprint_of, new_sample_id
from agent.domain.day_budget import Spent
from agent.domain.duplicates import RecentlyKept
from agent.domain.errors import StateError
from agent.domain.input_statistics import InputStatistics
from agent.domain.result import Outcome, Result, SampleReason
from agent.domain.sampling import DISAGREEMENT_VALUE, Pick, pick
from agent.domain.slot import SampleCounts, SamplePolicy

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picked:
    """An input on its way to the spool; `tensor` is our own copy."""

    input_name: str
    tensor: Tensor
    result: Result
    pick: Pick
    policy: SamplePolicy
    statistics: InputStatistics | None
    capture_time: datetime

    @property
    def by_chance(self) -> bool:
        return self.pick.reason is SampleReason.RANDOM

    @property
    def label(self) -> str:
        return _best(self.result)


class SampleCollector:
    """`app.ports.SampleOffers`, and the thread behind it. `start` once, `stop` once."""

    def __init__(
        self,
        spool: SampleSpool,
        watch: InputWatch,
        *,
        conditions: Conditions,
        clock: Clock,
        rng: random.Random,
        redactors: Sequence[Redactor] = (),
        on_sample: Callable[[], None] = lambda: None,
    ) -> None:
        """`redactors` run after the policy's own regions; `on_sample` is called from the thread after each sample that
        was kept."""
        self._spool = spool
        self._watch = watch
        self._conditions = conditions
        self._clock = clock
        self._rng = rng
        self._redactors = tuple(redactors)
        self._on_sample = on_sample
        self._counter = SampleCounter()
        self._lock = threading.Lock()
        """Guards the bytes that wait."""
        self._waiting_bytes = 0
        self._closed_quotas: dict[tuple[str, str], float] = {}
        """When quotas of slot and label that were full are looked at again. Written without a lock: a look too many
        does no harm."""
        self._expected_bytes: dict[str, int] = {}
        """What a sample of a slot took when there was no more room for it: what does not fit is not encoded again to
        see that, which would cost as much as to keep it, all day."""
        self._recent: dict[str, RecentlyKept] = {}
        """The thread's own, by slot."""
        self._queue: queue.Queue[_Picked | None] = queue.Queue(limits.SAMPLE_QUEUE_MAX)
        self._thread = threading.Thread(target=self._work, name="samples", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Keep what was picked before, then end the thread; blocks as long as that takes, within the stop's bound."""
        self._queue.put(None)
        self._thread.join(limits.STOP_SECONDS_MAX)

    def counts(self) -> SampleCounts:
        """Inputs that were picked, by what became of them."""
        return self._counter.counts(
            dropped=self._spool.dropped, waiting=len(self._spool.pending()), waiting_bytes=self._spool.size_bytes
        )

    # --- the serving path ---

    def offer(self, inputs: Mapping[str, Tensor], results: Sequence[Result], policy: SamplePolicy) -> None:
        for index, result in enumerate(results):
            if result.outcome is not Outcome.OK:
                continue
            drawn = self._rng.random()
            statistics = distance = None
            if self._watch.draw(result.slot):
                _, view = sampled_input(inputs, index, len(results))
                statistics, distance = self._watch.look(view, result)
            if policy.budget_bytes_per_day <= 0:
                continue
            quota_left = bool(policy.class_quota_per_day) and self._quota_left(result, policy)
            found = pick(policy, result.labels, drawn=drawn, distance=distance, quota_left=quota_left)
            if found is not None:
                self._take(inputs, results, index, found=found, policy=policy, statistics=statistics)

    def offer_disagreement(
        self, inputs: Mapping[str, Tensor], results: Sequence[Result], index: int, policy: SamplePolicy
    ) -> None:
        if policy.shadow_disagreement and policy.budget_bytes_per_day > 0:
            found = Pick(reason=SampleReason.SHADOW_DISAGREEMENT, value=DISAGREEMENT_VALUE)
            self._take(inputs, results, index, found=found, policy=policy, statistics=None)

    def _quota_left(self, result: Result, policy: SamplePolicy) -> bool:
        key = (result.slot, _best(result))
        if not result.labels or self._clock.monotonic() < self._closed_quotas.get(key, 0.0):
            return False
        if self._spool.budget(result.slot).quota_left(policy, key[1]):
            return True
        if len(self._closed_quotas) >= limits.SAMPLE_QUOTAS_CLOSED_MAX:
            self._closed_quotas.clear()
        self._closed_quotas[key] = self._clock.monotonic() + limits.SAMPLE_QUOTA_CLOSED_SECONDS
        return False

    def _take(
        self,
        inputs: Mapping[str, Tensor],
        results: Sequence[Result],
        index: int,
        *,
        found: Pick,
        policy: SamplePolicy,
        statistics: InputStatistics | None,
    ) -> None:
        """Copy the input and put it in the queue, unless it cannot be kept anyway."""
        result = results[index]
        lacking = self._spool.budget(result.slot).lacks(
            policy,
            size_bytes=self._expected_bytes.get(result.slot, 1),
            by_chance=found.reason is SampleReason.RANDOM,
            value=found.value,
        )
        if lacking is not None:
            self._counter.skip(BUDGET_SKIPS[lacking])
            return
        name, view = sampled_input(inputs, index, len(results))
        with self._lock:
            if self._waiting_bytes + view.nbytes > limits.SAMPLE_QUEUE_BYTES_MAX or self._queue.full():
                full = True
            else:
                full = False
                self._waiting_bytes += view.nbytes
        if full:
            self._counter.skip(Skip.QUEUE_FULL)
            return
        picked = _Picked(
            input_name=name,
            tensor=view.copy(),
            result=result,
            pick=found,
            policy=policy,
            statistics=statistics,
            capture_time=self._clock.now(),
        )
        try:
            self._queue.put_nowait(picked)
        except queue.Full:  # another thread was quicker
            self._counter.skip(Skip.QUEUE_FULL)
            self._release(picked)

    def _release(self, picked: _Picked) -> None:
        with self._lock:
            self._waiting_bytes -= picked.tensor.nbytes

    # --- the thread ---

    def _work(self) -> None:
        flushed_seconds = self._clock.monotonic()
        while True:
            try:
                picked = self._queue.get(timeout=limits.INPUTS_FLUSH_SECONDS)
            except queue.Empty:
                self._watch.flush()
                continue
            if picked is None:
                self._watch.flush()
                return
            self._attend(picked)
            if self._clock.monotonic() - flushed_seconds >= limits.INPUTS_FLUSH_SECONDS:
                self._watch.flush()
                flushed_seconds = self._clock.monotonic()

    def _attend(self, picked: _Picked) -> None:
        try:
            why_not = self._keep(picked)
            self._conditions.set(conditions.SAMPLES_WRITABLE, holds=True, reason="Written")
        except StateError as error:
            why_not = Skip.DISK
            self._conditions.set(conditions.SAMPLES_WRITABLE, holds=False, reason="SpoolUnwritable", message=str(error))
        except (ValueError, TypeError, OSError) as error:  # what encoders raise on a tensor they cannot take
            why_not = Skip.NOT_ENCODABLE
            _log.error("sample_not_encoded", slot=picked.result.slot, error=repr(error))
        finally:
            self._release(picked)
        if why_not is not None:
            self._counter.skip(why_not)

    def _keep(self, picked: _Picked) -> Skip | None:
        """Why it is not kept, None where it is. A sample that the spool has no room for counts there."""
        recent = self._recent.setdefault(picked.result.slot, RecentlyKept(limits.SAMPLES_REMEMBERED_MAX))
        bits_max = picked.policy.near_duplicate_distance
        picture_hash = difference_hash(picked.tensor) if bits_max else None
        if not picked.by_chance and recent.near(picture_hash, bits_max or 0):
            return Skip.NEAR_DUPLICATE
        # Of the input and not of the content: a line that stands still must not have each image encoded to see it.
        fingerprint = fingerprint_of(picked.tensor)
        if bits_max is not None and recent.same(fingerprint):
            return Skip.DUPLICATE
        image = self._redacted(picked)
        if image is None:
            return Skip.NOT_REDACTABLE
        content = content_of(image)
        if len(content.data) > limits.SAMPLE_BYTES_MAX:
            _log.warning("sample_too_large", slot=picked.result.slot, size_bytes=len(content.data))
            return Skip.TOO_LARGE
        if (refused := self._refused(picked, len(content.data))) is not None:
            return refused
        self._spool.spend(picked.result.slot, len(content.data), picked.label)
        message = description(
            content,
            input_name=picked.input_name,
            result=picked.result,
            pick=picked.pick,
            statistics=picked.statistics,
            capture_time=picked.capture_time,
        )
        sample = SpooledSample(
            id=new_sample_id(picked.capture_time),
            sample=message.SerializeToString(),
            content=content.data,
            value=picked.pick.value,
        )
        if self._spool.add(sample):
            recent.add(fingerprint, picture_hash)
            self._counter.keep(picked.pick.reason)
            self._on_sample()
        return None

    def _refused(self, picked: _Picked, size_bytes: int) -> Skip | None:
        budget = self._spool.budget(picked.result.slot)
        if picked.pick.reason is SampleReason.CLASS_QUOTA and not budget.quota_left(picked.policy, picked.label):
            return Skip.QUOTA
        lacking = budget.lacks(
            picked.policy, size_bytes=size_bytes, by_chance=picked.by_chance, value=picked.pick.value
        )
        if lacking is None:
            return None
        if lacking is not Spent.IMAGES:
            self._expected_bytes[picked.result.slot] = size_bytes
        return BUDGET_SKIPS[lacking]

    def _redacted(self, picked: _Picked) -> Tensor | None:
        """The input as it may be kept; None where it may not be."""
        try:
            image = redact(picked.tensor, picked.policy.redaction)
            for redactor in self._redactors:
                image = redactor(picked.result.slot, image)
        except Unredactable:
            _log.warning("sample_unredactable", slot=picked.result.slot, shape=picked.tensor.shape)
            return None
        except Exception as error:  # noqa: BLE001 - a site's own code may fail in any way: nothing is kept then
            _log.error("redactor_failed", slot=picked.result.slot, error=repr(error))
            return None
        return image


def _best(result: Result) -> str:
    return result.labels[0].label if result.labels else ""
