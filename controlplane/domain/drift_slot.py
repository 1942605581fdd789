"""One slot's drifts, version by version: which of them serves, and what becomes of the others.

The version that serves is the one of the newest window by the agent's own order of batches, so that a window that comes
late, or an agent's clock that is set back, moves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.audit import Happening
from controlplane.domain.drift import Drift, DriftPolicy, DriftState, begin, retire, serve_again, take, tell
from controlplane.domain.evidence import MetricWindow
from controlplane.domain.inventory import AgentRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What new windows of a slot have changed."""

    changed: tuple[Drift, ...] = ()
    removed: tuple[Drift, ...] = ()
    """Of versions that served too long ago."""
    happenings: tuple[Happening, ...] = ()


def follow(
    known: Sequence[Drift],
    windows: Sequence[MetricWindow],
    policy: DriftPolicy,
    *,
    versions_max: int,
    stretches_max: int,
    now: datetime,
) -> Followed:
    """Return what the windows, in the order in which they came, change about the slot's known drifts. Of one version
    they are taken in about `stretches_max` stretches at most, once its reference is whole."""
    before = {drift.version: drift for drift in known}
    after = dict(before)
    answered = [window for window in windows if window.inference_count > window.error_count]
    for version in dict.fromkeys(window.version for window in answered):
        of_version = [window for window in answered if window.version == version]
        drift = after.get(version) or begin(of_version[0], now=now)
        size, first = -(-len(of_version) // stretches_max), 0
        while first < len(of_version):
            # How much windows vary shows only while they are apart.
            end = first + (1 if drift.state is DriftState.LEARNING else size)
            drift, first = take(drift, of_version[first:end], policy, now=now), end
        after[version] = drift
    if not after:
        return Followed()
    newest = sorted(after.values(), key=lambda drift: (drift.place, drift.version), reverse=True)
    settled = [_settled(drift, newest[0], now) for drift in newest[:versions_max]]
    happenings = [tell(before.get(drift.version), drift) for drift in settled]
    return Followed(
        changed=tuple(drift for drift in settled if before.get(drift.version) != drift),
        removed=tuple(drift for drift in newest[versions_max:] if drift.version in before),
        happenings=tuple(happening for happening in happenings if happening is not None),
    )


def is_current(drift: Drift, record: AgentRecord | None) -> bool:
    """Whether a serving drift still says something of its agent: that is not revoked and, as far as it was heard of,
    serves the version."""
    if record is None or record.agent.revoked:
        return False
    if record.observation is None:
        return True
    slot = record.observation.observed.slot(drift.model_id)
    return slot is not None and slot.serving_version in (0, drift.version)


def _settled(drift: Drift, newest: Drift, now: datetime) -> Drift:
    if drift is newest:
        return drift if drift.serving else serve_again(drift)
    return retire(drift, newest.version, now=now) if drift.serving else drift
