"""What is known of versions that do not serve: which are prepared, and why one could not be.

A failure here is no failure of the version: it is tried again after a while, and counts only once it is offered.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from agent.app.ports import ServingRecord
from agent.domain.device import DeviceChoice
from agent.domain.errors import AgentError
from agent.domain.reconcile import PreparedKey, candidates_of, prefetch_of, prepared_key, runs_alike
from agent.domain.slot import DesiredSlot, ObservedSlot


class Preparations:
    """Device choices by what they were made for, and the last failure of each slot's prefetch."""

    def __init__(self, is_complete: Callable[[DesiredSlot], bool]) -> None:
        self._is_complete = is_complete
        self._choices: dict[PreparedKey, DeviceChoice] = {}
        self._failures: dict[str, tuple[DesiredSlot, str]] = {}

    def keys(self, is_stale: Callable[[DeviceChoice], bool]) -> frozenset[PreparedKey]:
        """Of choices that still hold."""
        return frozenset(key for key, choice in self._choices.items() if not is_stale(choice))

    def choice(self, slot: DesiredSlot) -> DeviceChoice:
        return self._choices[prepared_key(slot)]

    def put(self, slot: DesiredSlot, choice: DeviceChoice) -> None:
        self._choices[prepared_key(slot)] = choice
        self._failures.pop(slot.slot, None)

    def drop(self, slot: DesiredSlot) -> None:
        self._choices.pop(prepared_key(slot), None)

    def fail(self, candidate: DesiredSlot, error: AgentError) -> None:
        """The slot's prefetch could not be prepared this time."""
        self._failures[candidate.slot] = (candidate, f"{error.reason}: {error}")

    def keep_only(self, slots: Iterable[DesiredSlot]) -> None:
        used = {prepared_key(slot) for slot in slots}
        self._choices = {key: choice for key, choice in self._choices.items() if key in used}

    def restore(self, records: Iterable[ServingRecord]) -> None:
        """Of an earlier process; those whose bytes are gone have to be prepared anew."""
        for record in records:
            if self._is_complete(record.desired):
                self._choices[prepared_key(record.desired)] = record.choice

    def records(self, wanted: Iterable[DesiredSlot]) -> tuple[ServingRecord, ...]:
        """What a restart needs, so that neither what is desired nor a candidate is measured again."""
        return tuple(
            ServingRecord(desired=slot, choice=self._choices[prepared_key(slot)])
            for want in wanted
            for slot in (replace(want, prefetch=None, shadow=None), *candidates_of(want))
            if prepared_key(slot) in self._choices
        )

    def report(self, observed: ObservedSlot, wanted: DesiredSlot | None) -> ObservedSlot:
        """The slot with how its prefetch stands."""
        candidate = prefetch_of(wanted) if wanted is not None else None
        if candidate is None:
            return observed
        if prepared_key(candidate) in self._choices and self._is_complete(candidate):
            return replace(observed, prefetched_version=candidate.version)
        failed, message = self._failures.get(candidate.slot, (None, ""))
        return replace(observed, prefetch_failure=message) if failed and runs_alike(failed, candidate) else observed
