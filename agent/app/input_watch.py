"""Watches what inputs look like: counts for the controller, and how far each is from what its version saw first.

Rules kept here:
- The serving path computes statistics of at most INPUTS_WATCHED_PER_SECOND inputs of a slot; of more than that a random
  share is watched, so that the counts are of an unbiased share.
- The baseline of a version at this slot is learned once, from its first BASELINE_INPUTS watched inputs, and kept over
  restarts and swaps there and back: an input is odd by what was normal, not by what has become so.
- What was counted is put on disk each INPUTS_FLUSH_SECONDS by another thread; a kill loses no more than that.
"""

import random
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog
from lineside.v1 import evidence_pb2

from agent import limits
from agent.app.evidence import timestamp, version_name
from agent.app.input_histograms import InputHistograms
from agent.app.input_statistics import statistics_of
from agent.app.ports import Clock, InputLog, Tensor
from agent.domain.baseline import Baseline, learn_baseline
from agent.domain.errors import StateError
from agent.domain.input_statistics import InputStatistics
from agent.domain.result import Result

_log = structlog.get_logger()

_AIM = 0.8
"""Of the bound, so that a second with a few more is not cut off at its end, which would make the share a biased one."""
BaselineKey = tuple[str, int]
"""Slot and version."""


class BaselineFile(Protocol):
    """Baselines over restarts. Blocking."""

    def read(self) -> Mapping[BaselineKey, Baseline]:
        """Oldest first; none where none were written or they cannot be read."""
        ...

    def write(self, baselines: Mapping[BaselineKey, Baseline]) -> None:
        """Raises StateError (STATE_UNWRITABLE)."""
        ...


@dataclass(slots=True)
class _Pace:
    """How many inputs of one slot came lately. Counted without a lock: an input more or less does not matter."""

    since_seconds: float
    seen: int = 0
    watched: int = 0
    share: float = 1.0


@dataclass(slots=True)
class _Counted:
    start: datetime
    end: datetime
    histograms: InputHistograms = field(default_factory=InputHistograms)


class InputWatch:
    """`look` is for the threads that serve, all else for the thread of samples."""

    def __init__(self, log: InputLog, baselines: BaselineFile, *, clock: Clock, rng: random.Random) -> None:
        self._log = log
        self._file = baselines
        self._clock = clock
        self._rng = rng
        self._lock = threading.Lock()
        """Guards what follows but the paces; held for some microseconds, and to learn a baseline for a millisecond."""
        self._paces: dict[str, _Pace] = {}
        self._counted: dict[tuple[str, int, str], _Counted] = {}
        self._learning: OrderedDict[BaselineKey, list[tuple[float, ...]]] = OrderedDict()
        self._baselines: OrderedDict[BaselineKey, Baseline] = OrderedDict(baselines.read())
        self._unsaved = False

    # --- the serving path ---

    def draw(self, slot: str) -> bool:
        """Whether to watch the next input of the slot. Touches no lock."""
        pace = self._paces.get(slot)
        if pace is None:
            pace = self._paces[slot] = _Pace(self._clock.monotonic())
        pace.seen += 1
        if pace.seen >= limits.INPUTS_WATCHED_PER_SECOND:
            self._adapt(pace)
        if pace.watched >= limits.INPUTS_WATCHED_PER_SECOND or (pace.share < 1.0 and self._rng.random() >= pace.share):
            return False
        pace.watched += 1
        return True

    def look(self, tensor: Tensor, result: Result) -> tuple[InputStatistics | None, float | None]:
        """The input's statistics, None where it has none, and its distance from the baseline, None while there is
        none."""
        statistics = statistics_of(tensor)
        if statistics is None:
            return None, None
        key = (result.slot, result.version)
        with self._lock:
            counted = self._counted.get((*key, result.device))
            if counted is None:
                counted = self._counted[*key, result.device] = _Counted(result.infer_time, result.infer_time)
            counted.start, counted.end = min(counted.start, result.infer_time), max(counted.end, result.infer_time)
            counted.histograms.add(statistics)
            baseline = self._baselines.get(key)
            if baseline is None:
                self._learn(key, statistics.values)
        return statistics, None if baseline is None else baseline.distance(statistics.values)

    def _adapt(self, pace: _Pace) -> None:
        now_seconds = self._clock.monotonic()
        passed = now_seconds - pace.since_seconds
        if passed >= 1.0:
            pace.share = min(1.0, _AIM * limits.INPUTS_WATCHED_PER_SECOND * passed / pace.seen)
            pace.since_seconds, pace.seen, pace.watched = now_seconds, 0, 0

    def _learn(self, key: BaselineKey, values: tuple[float, ...]) -> None:
        """Call with the lock held."""
        rows = self._learning.setdefault(key, [])
        rows.append(values)
        if len(rows) >= limits.BASELINE_INPUTS:
            del self._learning[key]
            self._baselines[key] = learn_baseline(rows)
            self._unsaved = True
            if len(self._baselines) > limits.BASELINES_MAX:
                self._baselines.popitem(last=False)
        elif len(self._learning) > limits.BASELINES_MAX:
            self._learning.popitem(last=False)

    # --- the thread of samples ---

    def flush(self) -> None:
        """Put on disk what was counted and learned since the last time."""
        with self._lock:
            counted, self._counted = self._counted, {}
            baselines = dict(self._baselines) if self._unsaved else None
            self._unsaved = False
        for (slot, version, device), each in counted.items():
            self._log.append_inputs(
                evidence_pb2.MetricWindow(
                    slot=slot,
                    model_version=version_name(slot, version),
                    device=device,
                    start_time=timestamp(each.start),
                    end_time=timestamp(each.end),
                    input_statistics=each.histograms.messages(),
                )
            )
        if baselines is not None:
            self._save(baselines)

    def _save(self, baselines: Mapping[BaselineKey, Baseline]) -> None:
        try:
            self._file.write(baselines)
        except StateError as error:
            _log.warning("baselines_unsaved", error=str(error))
            with self._lock:
                self._unsaved = True
