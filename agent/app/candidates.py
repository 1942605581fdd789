"""Work on versions that do not serve: what becomes of it when it fails, and how it makes way for what does."""

from collections.abc import Iterable
from pathlib import Path

import structlog

from agent import limits
from agent.app.ports import Runtime
from agent.app.postponements import Postponements
from agent.app.prefetching import Preparations
from agent.app.shadowing import Shadows
from agent.domain.artifact import ModelSignature
from agent.domain.errors import AgentError, ArtifactError, Reason
from agent.domain.reconcile import Purpose, candidates_of, digests_of, same_work, shadow_of
from agent.domain.slot import DesiredSlot

_log = structlog.get_logger()

_LOST = frozenset({Reason.CONTROLLER_UNAVAILABLE, Reason.AGENT_REVOKED})


class Candidates:
    """One per agent, driven by its executor."""

    def __init__(self, *, runtime: Runtime, preparations: Preparations, shadows: Shadows, waits: Postponements) -> None:
        self._runtime = runtime
        self._preparations = preparations
        self._shadows = shadows
        self._waits = waits

    async def start_shadow(
        self, wanted: DesiredSlot, candidate: DesiredSlot, folder: Path, serving: ModelSignature
    ) -> None:
        """Load the candidate beside what serves, and run it. Raises PrepareError; `Shadows.begin` was called before."""
        configuration = self._preparations.choice(candidate).configuration
        try:
            loaded = await self._runtime.load(folder, candidate.signature, candidate.runtime_policy, configuration)
        except BaseException:
            self._shadows.unbegin(candidate)
            raise
        self._shadows.run(wanted, candidate, loaded, serving_signature=serving)
        _log.info("shadow_runs", slot=wanted.slot, version=candidate.version, device=str(configuration))

    def wait_on(self, before: Iterable[DesiredSlot], now: Iterable[DesiredSlot]) -> None:
        """What is desired has changed. A candidate that stays one waits on, unless it is offered again: each try costs
        the box minutes. Nothing else waits."""
        kept = tuple(before)
        staying = {
            each.slot for each in now if any(same_work(each, other) and each.offer == other.offer for other in kept)
        }
        self._waits.keep(lambda lane: lane[1] is not Purpose.SERVE and lane[0] in staying)

    def settle(self, candidate: DesiredSlot, purpose: Purpose, error: AgentError, *, again: bool) -> None:
        """A prefetch is tried again for as long as it is wanted; a shadow run fails for good, but not for want of the
        controller and not where `again` says that one more try may help."""
        lane = (candidate.slot, purpose)
        if again or error.reason in _LOST:
            self._waits.postpone(lane, error)
        elif purpose is Purpose.SHADOW:
            self._shadows.fail(candidate, error)
        else:
            self._preparations.fail(candidate, error)
            self._waits.postpone(
                lane,
                error,
                first_seconds=limits.CANDIDATE_RETRY_FIRST_SECONDS,
                max_seconds=limits.CANDIDATE_RETRY_SECONDS_MAX,
            )

    async def give_way(self, desired: Iterable[DesiredSlot], dropped: frozenset[str]) -> None:
        """These digests are to go: what needs one of them waits, or has failed."""
        error = ArtifactError(
            "the disk has no room for it beside the version to serve",
            field="artifact",
            remedy="free some disk on the agent's box",
            reason=Reason.DISK_FULL,
        )
        for wanted in desired:
            for candidate in candidates_of(wanted):
                if not digests_of([candidate]) & dropped:
                    continue
                _log.warning("candidate_gave_way", slot=wanted.slot, version=candidate.version)
                if candidate == shadow_of(wanted):
                    await self._shadows.end(wanted.slot)
                    self._shadows.fail(candidate, error)
                self._preparations.drop(candidate)
                self._preparations.fail(candidate, error)
                lane = (wanted.slot, Purpose.PREFETCH)
                self._waits.hold(lane, error.reason, seconds=limits.CANDIDATE_RETRY_FIRST_SECONDS)
