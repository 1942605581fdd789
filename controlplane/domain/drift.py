"""Drift: whether what a slot sees and answers is still what its version saw when it began to serve there.

What holds:
- A version's first inferences on an agent are its reference there. Another version has its own; one that serves again
  goes on with what it had.
- Inferences are taken in blocks, in the order in which they are heard of. Time plays no part: a slot that is idle for a
  week, or heard of late, is judged as if it were not.
- Over all of a reference's life, a stream that stays within the tolerance is flagged with probability of at most
  `false_alarm` (`drift_evidence`). Each further episode has a smaller part of that, so that together they hold it.
- What is flagged stays so until the recent inferences lie within the band again, the version is replaced, or an
  operator takes what is seen now as the reference.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from math import inf, log
from types import MappingProxyType

from controlplane.domain.audit import Happening, Json, rule
from controlplane.domain.condition import Condition, ConditionState
from controlplane.domain.drift_evidence import (
    Counts,
    StatisticTest,
    add_block,
    add_counts,
    log_stake,
    log_sum,
    names_of,
    start_tests,
)
from controlplane.domain.evidence import MetricWindow
from controlplane.domain.ids import AgentId, ModelId

LABELS, CONFIDENCE = "labels", "confidence"
INPUTS_DRIFTED = "InputsDrifted"
"""The condition's type."""
OTHER_LABELS = ""


class DriftState(StrEnum):
    LEARNING = "LEARNING"
    """The reference is not whole yet; nothing is flagged."""
    STEADY = "STEADY"
    DRIFTED = "DRIFTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPolicy:
    """How drift is looked for. Counts are of inferences that did not fail, or of the values of a statistic: an agent
    may look at a share of its inputs."""

    reference_count: int
    """First values of each statistic that make a reference. Up to `reference_factor_max` times as many while clusters
    among them leave it worth less than half of that."""
    reference_factor_max: int
    sampled_factor_max: int
    """A statistic is waited for until it has as many values as are wanted of inferences, up to so many times as many
    inferences."""
    reference_blocks_max: int
    """Blocks that are kept apart while a reference is learned, to see how much they vary."""
    tolerance: float
    """Of any share, 0 to 1: what may change without being drift."""
    false_alarm: float
    """Probability that a slot whose shares stay within the tolerance is flagged at all while its version serves."""
    block_count: int
    """Least inferences of a block."""
    recent_count: int
    """The recent past are the last one to two times as many inferences."""
    labels_max: int
    """Labels that are told apart, the most frequent of the reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Inferences that were heard of one after the other."""

    inferences: int = 0
    counts: Mapping[str, Counts] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What is known of one version on one agent."""

    agent_id: AgentId
    model_id: ModelId
    version: int
    state: DriftState = DriftState.LEARNING
    transition_time: datetime
    """The controller's clock."""
    message: str = ""
    serving: bool = True
    """Of the versions of the slot, the one that was heard of last."""
    place: tuple[int, datetime]
    """Batch and end of the last window that was heard of; of two versions, the one with the larger serves."""
    start_time: datetime
    """First inference of the reference, the agent's clock."""
    inference_count: int = 0
    reference_count: int = 0
    episode_count: int = 0
    block_number: int = 0
    """Blocks that were tested since the reference or the last episode."""
    pending: Block = Block()
    """What is not a whole block yet."""
    learned: tuple[Block, ...] = ()
    """The reference's blocks; one, of all of them, once it is whole."""
    tests: Mapping[str, StatisticTest] = field(default_factory=lambda: MappingProxyType({}))
    recent: tuple[Block, Block] = (Block(), Block())
    """The recent past, the newer part last."""
    revision: int = 0

    @property
    def name(self) -> str:
        return f"agents/{self.agent_id}/drifts/{self.model_id}@{self.version}"

    @property
    def model_version(self) -> str:
        return f"models/{self.model_id}/versions/{self.version}"

    @property
    def reference(self) -> Mapping[str, Counts]:
        """What was learned so far, by statistic."""
        return add_blocks(self.learned).counts

    @property
    def recently(self) -> Block:
        return add_blocks(self.recent)

    @property
    def log_evidence(self) -> float:
        """Logarithm of the evidence that any share has left its band."""
        bets = self.bets
        return log_sum([test.log_evidence(bets) for test in self.tests.values()]) if bets else -inf

    @property
    def bets(self) -> int:
        return sum(test.bets for test in self.tests.values())

    def log_needed(self, policy: DriftPolicy) -> float:
        """Logarithm of the evidence at which it is flagged. Half of the false alarms are left to the bands."""
        return log((self.episode_count + 1) * (self.episode_count + 2) * 2 / policy.false_alarm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One statistic of a drift, as people look at it."""

    name: str
    distance: float
    """Of the recent from the reference's share, where it is furthest by what is tolerated there."""
    tolerated: float
    log_evidence: float
    drifted: bool
    reference: Counts
    recent: Counts | None


def begin(window: MetricWindow, *, now: datetime) -> Drift:
    """Return the drift of the window's version before any of its inferences."""
    return Drift(
        agent_id=window.agent_id,
        model_id=window.slot,
        version=window.version,
        transition_time=now,
        place=(window.batch, window.end_time),
        start_time=window.start_time,
    )


def take(drift: Drift, windows: Sequence[MetricWindow], policy: DriftPolicy, *, now: datetime) -> Drift:
    """Return the drift with more windows of its version, together one block. Windows without an answered inference
    change nothing."""
    reference = drift.reference if drift.tests else {}
    block = add_blocks([block_of(window, reference) for window in windows])
    if not block.inferences:
        return drift
    pending = add_blocks([drift.pending, block])
    heard = replace(
        drift,
        place=max(drift.place, *((window.batch, window.end_time) for window in windows)),
        start_time=drift.start_time
        if drift.tests
        else min(drift.start_time, *(window.start_time for window in windows)),
        inference_count=drift.inference_count + block.inferences,
        pending=pending,
    )
    if pending.inferences < policy.block_count:
        return heard
    heard = replace(heard, pending=Block())
    if drift.state is DriftState.LEARNING:
        return _learn(heard, pending, policy, now)
    return _test(heard, pending, policy, now)


def retire(drift: Drift, successor: int, *, now: datetime) -> Drift:
    """Return the drift of a version that another one has followed. Its drift ends; its reference stays."""
    retired = replace(drift, serving=False)
    if drift.state is not DriftState.DRIFTED:
        return retired
    return _steady(retired, f"models/{drift.model_id}/versions/{successor} serves instead", now)


def serve_again(drift: Drift) -> Drift:
    """Return the drift of a version that serves again, with the reference that it had."""
    return replace(drift, serving=True, recent=(Block(), Block()), pending=Block())


def relearn(drift: Drift, reason: str, *, now: datetime) -> Drift:
    """Return the drift without a reference: what comes next is the new one."""
    return replace(
        drift,
        state=DriftState.LEARNING,
        transition_time=now,
        message=f"learned anew: {reason}",
        start_time=drift.place[1],
        reference_count=0,
        episode_count=0,
        block_number=0,
        pending=Block(),
        learned=(),
        tests=MappingProxyType({}),
        recent=(Block(), Block()),
    )


def moved(drift: Drift, policy: DriftPolicy) -> tuple[Moved, ...]:
    """Return where each statistic lies, the one with the most evidence first."""
    reference, recent, bets = drift.reference, drift.recently.counts, drift.bets
    flagged = _flagged(drift, policy)
    found = []
    for name, test in drift.tests.items():
        now_at = recent.get(name)
        distance, tolerated = test.distance(now_at) if now_at is not None and now_at.total else (0.0, 0.0)
        found.append(
            Moved(
                name=name,
                distance=distance,
                tolerated=tolerated,
                log_evidence=test.log_evidence(bets),
                drifted=name in flagged,
                reference=reference[name],
                recent=now_at,
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.log_evidence, one.name)))


def distances(drift: Drift, counts: Mapping[str, Counts]) -> Mapping[str, float]:
    """How far these counts lie from the reference, by statistic; empty while there is none."""
    found = {}
    for name, test in drift.tests.items():
        given = counts.get(name)
        if given is not None and given.total and given.kind == drift.reference[name].kind:
            found[name] = test.distance(given)[0]
    return found


def counts_of(window: MetricWindow, reference: Mapping[str, Counts]) -> Mapping[str, Counts]:
    """What a window counts, by statistic, in the bins of the reference where that has the statistic."""
    found = {
        name: Counts(bins=one.bin_counts, low=one.low, high=one.high)
        for name, one in window.input_statistics.items()
        if one.count
    }
    if sum(window.confidence_histogram):
        found[CONFIDENCE] = Counts(bins=window.confidence_histogram)
    if sum(window.label_counts.values()):
        known = reference.get(LABELS)
        found[LABELS] = _labels(window.label_counts, known.labels if known is not None else ())
    alike = {
        name: one
        for name, one in found.items()
        if name == LABELS or name not in reference or reference[name].kind == one.kind
    }
    return MappingProxyType(dict(sorted(alike.items())))


def block_of(window: MetricWindow, reference: Mapping[str, Counts]) -> Block:
    """Return a window's inferences that did not fail, counted as `counts_of` does."""
    return Block(inferences=window.inference_count - window.error_count, counts=counts_of(window, reference))


def add_blocks(blocks: Sequence[Block]) -> Block:
    """Return their inferences together. Labels are united; of other counts those of the first one's kind are added."""
    filled = [block for block in blocks if block.inferences]
    if len(filled) <= 1:
        return filled[0] if filled else Block()
    counts = [block.counts for block in _with_same_labels(filled)]
    return Block(
        inferences=sum(block.inferences for block in filled),
        counts=MappingProxyType(
            {name: add_counts([one[name] for one in counts if name in one]) for name in names_of(counts)}
        ),
    )


def tell(before: Drift | None, after: Drift) -> Happening | None:
    """Return what the change from one to the other is in the log; None where no drift began or ended."""
    was = before is not None and before.state is DriftState.DRIFTED
    is_now = after.state is DriftState.DRIFTED
    if was == is_now:
        return None
    reason = "INPUTS_DRIFTED" if is_now else ("WITHIN_BAND" if after.serving else "VERSION_REPLACED")
    return Happening(
        actor=rule("drift"),
        action="drift.begin" if is_now else "drift.end",
        resource=after.name,
        reason=reason,
        message=after.message,
        evidence=_evidence(after),
        related=related(after),
    )


def related(drift: Drift) -> tuple[str, ...]:
    """The resources that a decision about a drift touches."""
    return f"agents/{drift.agent_id}", f"models/{drift.model_id}", drift.model_version


def condition(drifts: Sequence[Drift]) -> Condition | None:
    """Return InputsDrifted of an agent, True, whose serving drifts these are; None where none of them is flagged."""
    flagged = [drift for drift in drifts if drift.serving and drift.state is DriftState.DRIFTED]
    if not flagged:
        return None
    return Condition(
        type=INPUTS_DRIFTED,
        state=ConditionState.TRUE,
        reason="FarFromReference",
        message="; ".join(f"{drift.model_id}:{drift.version}: {drift.message}" for drift in flagged),
        transition_time=min(drift.transition_time for drift in flagged),
    )


def _learn(drift: Drift, block: Block, policy: DriftPolicy, now: datetime) -> Drift:
    learned = (*drift.learned, block)
    if len(learned) > policy.reference_blocks_max:
        learned = _in_pairs(learned)
    count = drift.reference_count + block.inferences
    grown = replace(drift, learned=learned, reference_count=count)
    sums = add_blocks(learned)
    values = _values(sums, sums.counts, policy)
    if values < policy.reference_count or len(learned) < 2:
        return replace(
            grown, message=f"the reference has {values} of {policy.reference_count} values of each statistic"
        )
    prepared = _with_few_labels(learned, policy.labels_max)
    tests = start_tests([one.counts for one in prepared], tolerance=policy.tolerance, miss=policy.false_alarm / 2)
    clustered = max((test.dispersion for test in tests.values()), default=1.0)
    most = policy.reference_factor_max * policy.reference_count
    if values < most and values / clustered < policy.reference_count / 2:
        return replace(grown, message=f"the reference has {values} values, in clusters; it takes up to {most}")
    whole = replace(grown, learned=(add_blocks(prepared),), tests=tests, block_number=0)
    return replace(
        whole, state=DriftState.STEADY, transition_time=now, message=f"the reference are its first {count} inferences"
    )


def _test(drift: Drift, block: Block, policy: DriftPolicy, now: datetime) -> Drift:
    number = drift.block_number + 1
    stake = log_stake(number)
    tests = {
        name: add_block(test, block.counts[name], log_stake=stake)
        if name in block.counts and block.counts[name].total
        else test
        for name, test in drift.tests.items()
    }
    older, newer = drift.recent
    stretch = add_blocks([newer, block])
    full = _values(stretch, tests, policy) >= policy.recent_count
    tested = replace(
        drift,
        tests=MappingProxyType(tests),
        block_number=number,
        recent=(stretch, Block()) if full else (older, stretch),
    )
    if drift.state is DriftState.STEADY:
        if tested.log_evidence < tested.log_needed(policy):
            return tested
        return replace(
            tested,
            state=DriftState.DRIFTED,
            transition_time=now,
            message=_message(tested, policy),
            recent=_last(tested),
        )
    if full and _is_within(tests, stretch.counts):
        return _steady(tested, f"the last {stretch.inferences} inferences lie within the band again", now)
    return replace(tested, message=_message(tested, policy))


def _values(block: Block, names: Iterable[str], policy: DriftPolicy) -> int:
    """How many values the block has of each of the statistics, of the one with the fewest; more than that of those that
    have hardly any."""
    counts = (block.counts[name].total if name in block.counts else 0 for name in names)
    return max(min(counts, default=0), block.inferences // policy.sampled_factor_max)


def _last(drift: Drift) -> tuple[Block, Block]:
    """The recent past when it is flagged: what is newer counts for the end of the drift, so it begins anew."""
    return add_blocks(drift.recent), Block()


def _is_within(tests: Mapping[str, StatisticTest], counts: Mapping[str, Counts]) -> bool:
    return all(
        check.holds(counts[name])
        for name, test in tests.items()
        if name in counts and counts[name].total
        for check in test.checks
    )


def _steady(drift: Drift, message: str, now: datetime) -> Drift:
    return replace(
        drift,
        state=DriftState.STEADY,
        transition_time=now,
        message=message,
        episode_count=drift.episode_count + 1,
        block_number=0,
        tests=MappingProxyType({name: test.forget() for name, test in drift.tests.items()}),
    )


def _flagged(drift: Drift, policy: DriftPolicy) -> frozenset[str]:
    """Statistics that would have been flagged alone, or else the one with the most evidence."""
    if drift.state is not DriftState.DRIFTED:
        return frozenset()
    bets = drift.bets
    logs = {name: test.log_evidence(bets) for name, test in drift.tests.items()}
    alone = frozenset(name for name, one in logs.items() if one >= drift.log_needed(policy))
    return alone or frozenset([max(sorted(logs), key=lambda name: logs[name])])


def _message(drift: Drift, policy: DriftPolicy) -> str:
    flagged = _flagged(replace(drift, state=DriftState.DRIFTED), policy)
    said = [
        f"{one.name} {one.distance * 100:.0f} points ({one.tolerated * 100:.0f} are explained)"
        for one in moved(drift, policy)
        if one.name in flagged
    ]
    return f"the last {drift.recently.inferences} inferences lie away from the reference: {', '.join(said)}"


def _evidence(drift: Drift) -> Mapping[str, Json]:
    recent = drift.recently
    found: dict[str, Json] = {}
    for name, test in drift.tests.items():
        counts = recent.counts.get(name)
        if counts is not None and counts.total:
            distance, tolerated = test.distance(counts)
            found[name] = {"distance": round(distance, 4), "tolerated": round(tolerated, 4)}
    return MappingProxyType(
        {
            "statistics": found,
            "recent_count": recent.inferences,
            "reference_count": drift.reference_count,
            "inference_count": drift.inference_count,
            "evidence_log10": round(drift.log_evidence / log(10), 1) if drift.bets and drift.block_number else 0.0,
        }
    )


def _labels(label_counts: Mapping[str, int], known: Sequence[str]) -> Counts:
    """Counts of the known labels, the others under OTHER_LABELS; of all of them where none is known yet."""
    labels = tuple(known) or tuple(sorted({*label_counts, OTHER_LABELS}))
    bins = {label: label_counts.get(label, 0) for label in labels}
    bins[OTHER_LABELS] += sum(count for label, count in label_counts.items() if label not in bins)
    return Counts(labels=labels, bins=tuple(bins.values()))


def _by_label(counts: Counts) -> Mapping[str, int]:
    return dict(zip(counts.labels, counts.bins, strict=True))


def _with_same_labels(blocks: Sequence[Block]) -> Sequence[Block]:
    """The same blocks, whose label counts are of one kind."""
    every = sorted({label for block in blocks if LABELS in block.counts for label in block.counts[LABELS].labels})
    return [
        replace(block, counts={**block.counts, LABELS: _labels(_by_label(block.counts[LABELS]), every)})
        if LABELS in block.counts and block.counts[LABELS].labels != tuple(every)
        else block
        for block in blocks
    ]


def _with_few_labels(blocks: Sequence[Block], labels_max: int) -> Sequence[Block]:
    """The same blocks with no more labels than can be tested, the most frequent, and OTHER_LABELS."""
    whole = add_blocks(blocks).counts.get(LABELS)
    if whole is None:
        return blocks
    counted = sorted(_by_label(whole).items(), key=lambda one: (-one[1], one[0]))
    kept = sorted({label for label, _ in counted[:labels_max]} | {OTHER_LABELS})
    return [
        replace(block, counts={**block.counts, LABELS: _labels(_by_label(block.counts[LABELS]), kept)})
        if LABELS in block.counts
        else block
        for block in blocks
    ]


def _in_pairs(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Two by two: longer blocks show longer clusters."""
    return tuple(add_blocks(blocks[place : place + 2]) for place in range(0, len(blocks), 2))
