"""Versions on trial: what keeps one that kills the process from keeping the line down for ever.

Rules kept here:
- That a load in this process begins is on disk before it does, and that it has ended, soon after. A load that was
  begun LOAD_CRASHES_MAX times and never ended is not begun again under the same offer.
- A version that took another one's place is on trial until it has served for TRIAL_SECONDS. When TRIAL_CRASHES_MAX
  processes in a row end before that, other than by a regular stop, what served before it serves again.
- A version that has proven itself, or has none to fall back on, is judged by its loads alone: a box whose power comes
  and goes must not lose what it runs.
"""

from collections.abc import Iterable
from dataclasses import replace

from agent import limits
from agent.app.ports import FailureRecord, SavedState, ServingRecord, Trial
from agent.domain.errors import Reason
from agent.domain.reconcile import runs_alike
from agent.domain.slot import DesiredSlot


class Trials:
    """Those that are open. The executor says what happens, and saves `all()` with its state."""

    def __init__(self) -> None:
        self._trials: tuple[Trial, ...] = ()
        self._since_seconds: dict[str, float] = {}
        """By slot: when what serves on trial began to, on the monotonic clock."""

    def all(self) -> tuple[Trial, ...]:
        return self._trials

    @property
    def on_trial(self) -> bool:
        """Whether something serves in this process that has not proven itself."""
        return bool(self._since_seconds)

    def restore(self, trials: Iterable[Trial]) -> None:
        """Those that an earlier process left open."""
        self._trials = tuple(trials)

    def fallbacks(self) -> tuple[DesiredSlot, ...]:
        """What may have to serve again, so that its bytes are needed."""
        return tuple(trial.before.desired for trial in self._trials if trial.before is not None)

    def begin(self, wanted: DesiredSlot, *, before: ServingRecord | None) -> None:
        """A load begins while `before` serves; None at a start, where nothing does yet."""
        known = self._find(wanted)
        if known is None or known.desired.offer != wanted.offer:
            known = Trial(desired=wanted, before=self._proven(before))
        self._put(replace(known, loads=known.loads + 1))

    def end(self, wanted: DesiredSlot) -> None:
        """The load ended without a model that serves."""
        self._trials = tuple(trial for trial in self._trials if not runs_alike_in_slot(trial.desired, wanted))

    def serve(self, wanted: DesiredSlot, *, now_seconds: float) -> None:
        """The load ended and the version serves: on trial as long as there is something to fall back on."""
        trial = self._find(wanted)
        self.end(wanted)
        self._since_seconds.pop(wanted.slot, None)
        if trial is not None and trial.before is not None:
            self._put(replace(trial, loads=0, starts=trial.starts + 1))
            self._since_seconds[wanted.slot] = now_seconds

    def supersede(self, wanted: DesiredSlot) -> None:
        """It has taken the slot: how others fared there no longer matters."""
        self._trials = tuple(
            trial
            for trial in self._trials
            if trial.desired.slot != wanted.slot or runs_alike_in_slot(trial.desired, wanted)
        )

    def adopt(self, wanted: DesiredSlot) -> None:
        """What serves is wanted under another offer."""
        trial = self._find(wanted)
        if trial is not None:
            self._put(replace(trial, desired=wanted))

    def forget(self, slot: str) -> None:
        self._trials = tuple(trial for trial in self._trials if trial.desired.slot != slot)
        self._since_seconds.pop(slot, None)

    def prove(self, *, now_seconds: float) -> bool:
        """Close the trials of what has served for long enough; whether there were any."""
        proven = [slot for slot, since in self._since_seconds.items() if now_seconds - since >= limits.TRIAL_SECONDS]
        for slot in proven:
            self.forget(slot)
        return bool(proven)

    def proof_seconds(self, *, now_seconds: float) -> float:
        """Seconds until the next trial may be closed; infinite where none is open."""
        ends = [since + limits.TRIAL_SECONDS - now_seconds for since in self._since_seconds.values()]
        return max(0.0, min(ends, default=float("inf")))

    def stop(self) -> None:
        """The process ends by a regular stop, which is nobody's fault."""
        self._trials = tuple(
            replace(trial, loads=0, starts=0) for trial in self._trials if trial.desired.slot in self._since_seconds
        )

    # --- within ---

    def _find(self, wanted: DesiredSlot) -> Trial | None:
        return next((trial for trial in self._trials if runs_alike_in_slot(trial.desired, wanted)), None)

    def _put(self, trial: Trial) -> None:
        self.end(trial.desired)
        self._trials = (*self._trials, trial)

    def _proven(self, before: ServingRecord | None) -> ServingRecord | None:
        """The newest that is known to be good: what serves, or what served before it while that is on trial."""
        on_trial = self._find(before.desired) if before is not None else None
        return on_trial.before if on_trial is not None and on_trial.before is not None else before


def settle(saved: SavedState) -> SavedState:
    """What to start from: a version that keeps killing the process is a failure, and what served before it serves."""
    given_up = [trial for trial in saved.trials if _verdict(trial) is not None]
    desired = {slot.slot: slot.version for slot in saved.desired.slots}
    failures = {failure.slot: failure for failure in saved.failures}
    serving = {record.desired.slot: record for record in saved.serving}
    # Of two in one slot, the failure of what is desired is the one to remember: the other is not tried.
    for trial in sorted(given_up, key=lambda trial: desired.get(trial.desired.slot) == trial.desired.version):
        slot = trial.desired.slot
        failures[slot] = _failure(trial)
        record = serving.get(slot)
        if record is not None and runs_alike(record.desired, trial.desired):
            del serving[slot]
            if trial.before is not None:
                serving[slot] = trial.before
    return replace(
        saved,
        serving=tuple(serving.values()),
        failures=tuple(failures.values()),
        trials=tuple(trial for trial in saved.trials if trial not in given_up),
    )


def runs_alike_in_slot(one: DesiredSlot, other: DesiredSlot) -> bool:
    """Whether a load of the one is a load of the other."""
    return one.slot == other.slot and runs_alike(one, other)


def _verdict(trial: Trial) -> Reason | None:
    if trial.loads >= limits.LOAD_CRASHES_MAX:
        return Reason.LOAD_CRASHED
    if trial.before is not None and trial.starts >= limits.TRIAL_CRASHES_MAX:
        return Reason.SERVE_CRASHED
    return None


def _failure(trial: Trial) -> FailureRecord:
    reason = _verdict(trial)
    assert reason is not None
    if reason is Reason.LOAD_CRASHED:
        what = f"the agent's process ended {trial.loads} times while it loaded this version"
    else:
        seconds = limits.TRIAL_SECONDS
        what = f"{trial.starts} processes of the agent in a row ended within {seconds:.0f} s of serving this version"
    remedy = "look for the crash in the box's journal, then publish a mended version, or offer this one again"
    return FailureRecord(
        slot=trial.desired.slot,
        version=trial.desired.version,
        offer=trial.desired.offer,
        reason=reason,
        message=f"{what}; {remedy}",
    )
