"""Chooses inputs for training, encodes them off the serving path and puts them on the spool.

Rules kept here:
- `offer` never blocks and never fails: it draws, copies what was picked, and leaves the rest to one thread. Inputs may
  lie in memory that the application reuses once it is answered, hence the copy.
- What waits to be encoded is bounded by number and bytes; what does not fit is not sampled.
- The day's budget is spent before a sample is kept, in bytes of content as they go to disk.
"""

import hashlib
import io
import queue
import random
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np
import structlog
from lineside.v1 import sample_pb2

from agent import limits
from agent.app import conditions
from agent.app.conditions import Conditions
from agent.app.evidence import result_message, timestamp
from agent.app.ports import Clock, SampleSpool, SpooledSample, Tensor
from agent.domain.errors import StateError
from agent.domain.result import Outcome, Result, SampleReason
from agent.domain.sampling import pick
from agent.domain.slot import SamplePolicy

_log = structlog.get_logger()

_REASONS: Mapping[SampleReason, "sample_pb2.Sample.Reason.ValueType"] = {
    SampleReason.RANDOM: sample_pb2.Sample.REASON_RANDOM,
    SampleReason.LEAST_CONFIDENCE: sample_pb2.Sample.REASON_LEAST_CONFIDENCE,
}
PNG = "image/png"
NPY = "application/x-npy"


class Skip(StrEnum):
    """Why an input that was picked is no sample."""

    QUEUE_FULL = "queue_full"
    NOT_ENCODABLE = "not_encodable"
    TOO_LARGE = "too_large"
    BUDGET = "budget"
    DISK = "disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCounts:
    """Since the start. What the bound of the disk dropped later is the spool's to say."""

    kept: int
    skipped: Mapping[Skip, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picked:
    """An input on its way to the spool; `tensor` is our own copy."""

    input_name: str
    tensor: Tensor
    result: Result
    reason: SampleReason
    budget_bytes: int
    capture_time: datetime


class SampleCollector:
    """`app.ports.SampleOffers`, and the thread behind it. `start` once, `stop` once."""

    def __init__(
        self,
        spool: SampleSpool,
        *,
        conditions: Conditions,
        clock: Clock,
        rng: random.Random,
        on_sample: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_sample` is called from the thread after each sample that was kept."""
        self._spool = spool
        self._conditions = conditions
        self._clock = clock
        self._rng = rng
        self._on_sample = on_sample
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._kept = 0
        self._skipped = dict.fromkeys(Skip, 0)
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
        with self._lock:
            return SampleCounts(kept=self._kept, skipped=dict(self._skipped))

    # --- the serving path ---

    def offer(self, inputs: Mapping[str, Tensor], results: Sequence[Result], policy: SamplePolicy) -> None:
        if policy.budget_bytes_per_day <= 0 or (policy.random_fraction <= 0 and policy.confidence_below <= 0):
            return
        for index, result in enumerate(results):
            if result.outcome is not Outcome.OK:
                continue
            left_bytes = self._spool.budget_left(result.slot, policy.budget_bytes_per_day)
            with self._lock:
                reason = pick(policy, result.confidence, self._rng, left_bytes)
            if reason is not None:
                name, view = sampled_input(inputs, index, len(results))
                self._enqueue(name, view, result=result, reason=reason, policy=policy)

    def _enqueue(self, name: str, view: Tensor, *, result: Result, reason: SampleReason, policy: SamplePolicy) -> None:
        with self._lock:
            if self._waiting_bytes + view.nbytes > limits.SAMPLE_QUEUE_BYTES_MAX or self._queue.full():
                self._skipped[Skip.QUEUE_FULL] += 1
                return
            self._waiting_bytes += view.nbytes
        picked = _Picked(
            input_name=name,
            tensor=view.copy(),
            result=result,
            reason=reason,
            budget_bytes=policy.budget_bytes_per_day,
            capture_time=self._clock.now(),
        )
        try:
            self._queue.put_nowait(picked)
        except queue.Full:  # another thread was quicker
            self._skip(Skip.QUEUE_FULL)
            self._release(picked)

    def _skip(self, why: Skip) -> None:
        with self._lock:
            self._skipped[why] += 1

    def _release(self, picked: _Picked) -> None:
        with self._lock:
            self._waiting_bytes -= picked.tensor.nbytes

    # --- the thread ---

    def _work(self) -> None:
        while (picked := self._queue.get()) is not None:
            try:
                self._keep(picked)
                self._conditions.set(conditions.SAMPLES_WRITABLE, holds=True, reason="Written")
            except StateError as error:
                self._skip(Skip.DISK)
                self._conditions.set(
                    conditions.SAMPLES_WRITABLE, holds=False, reason="SpoolUnwritable", message=str(error)
                )
            except (ValueError, TypeError, OSError) as error:  # what encoders raise on a tensor they cannot take
                self._skip(Skip.NOT_ENCODABLE)
                _log.error("sample_not_encoded", slot=picked.result.slot, error=repr(error))
            finally:
                self._release(picked)

    def _keep(self, picked: _Picked) -> None:
        content_type, content = encode(picked.tensor)
        if len(content) > limits.SAMPLE_BYTES_MAX:
            _log.warning("sample_too_large", slot=picked.result.slot, size_bytes=len(content))
            self._skip(Skip.TOO_LARGE)
            return
        if not self._spool.take_budget(picked.result.slot, len(content), picked.budget_bytes):
            self._skip(Skip.BUDGET)
            return
        sample_id = new_sample_id(picked.capture_time)
        message = sample_pb2.Sample(
            capture_time=timestamp(picked.capture_time),
            reason=_REASONS[picked.reason],
            result=result_message(picked.result),
            content_type=content_type,
            digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
            size_bytes=len(content),
            input_name=picked.input_name,
        )
        self._spool.add(SpooledSample(id=sample_id, sample=message.SerializeToString(), content=content))
        with self._lock:
            self._kept += 1
        self._on_sample()


def sampled_input(inputs: Mapping[str, Tensor], index: int, count: int) -> tuple[str, Tensor]:
    """Name and item `index` of the input that a sample shows: an image where there is one, else the largest.
    `count` is the number of items in the batch; an input without that leading dimension is shown whole."""
    name = max(sorted(inputs), key=lambda key: (is_image(inputs[key]), inputs[key].nbytes))
    tensor = inputs[name]
    if count > 1 and tensor.ndim > 0 and tensor.shape[0] == count:
        return name, tensor[index : index + 1]
    return name, tensor


def is_image(tensor: Tensor) -> bool:
    """8-bit height x width x channels, of 1, 3 or 4 channels, with or without a leading batch."""
    return bool(tensor.dtype == np.uint8 and tensor.ndim in (3, 4) and tensor.shape[-1] in (1, 3, 4))


def encode(tensor: Tensor) -> tuple[str, bytes]:
    """Content type and bytes: PNG for one image, exact; else .npy, exact too."""
    pixels = tensor[0] if tensor.ndim == 4 and tensor.shape[0] == 1 else tensor
    buffer = io.BytesIO()
    if is_image(pixels) and pixels.ndim == 3 and pixels.size > 0:
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))
        image.save(buffer, format="PNG", compress_level=1)
        return PNG, buffer.getvalue()
    np.save(buffer, tensor, allow_pickle=False)
    return NPY, buffer.getvalue()


def new_sample_id(time: datetime) -> str:
    """Unique for good, sorts by time to the millisecond, and is a lower-case RFC-1123 id."""
    milliseconds = int(time.astimezone(UTC).timestamp() * 1_000)
    return f"s{milliseconds:012x}-{secrets.token_hex(10)}"
