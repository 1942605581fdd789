"""What Hypothesis draws for the domain's properties."""

from datetime import datetime, timedelta

from hypothesis import strategies as st

from controlplane.domain.evidence import TOGETHER, GroupEvidence, Tally
from controlplane.domain.gate import Evidence, FailureAction, GateOutcome, GatePolicy, GateVerdict
from controlplane.domain.ids import AgentId
from controlplane.domain.rollout import Progress, WaveSize
from controlplane.domain.selector import Operator, Requirement, Selector
from controlplane.domain.wave import EVERYBODY
from tests.support.factories import NOW

agent_ids = st.integers(min_value=0, max_value=400).map(lambda number: AgentId(f"st-{number}"))
fleets = st.sets(agent_ids, max_size=40)
targets = st.sets(agent_ids, min_size=1, max_size=40)
times: st.SearchStrategy[datetime] = st.integers(min_value=0, max_value=10_000).map(
    lambda seconds: NOW + timedelta(seconds=seconds)
)

keys = st.sampled_from(["line", "station", "site", "in", "notin", "plant.example.com/zone"])
values = st.sampled_from(["", "1", "2", "3", "suzhou", "in"])
labels = st.dictionaries(keys, values)


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    operator = draw(st.sampled_from(Operator))
    listed = operator in {Operator.IN, Operator.NOT_IN}
    drawn = draw(st.frozensets(values, min_size=1)) if listed else frozenset[str]()
    return Requirement(key=draw(keys), operator=operator, values=drawn)


selectors = st.lists(requirements(), min_size=1, max_size=4).map(lambda drawn: Selector(tuple(drawn)))


@st.composite
def wave_sizes(draw: st.DrawFn) -> tuple[WaveSize, ...]:
    counts = sorted(draw(st.sets(st.integers(1, 30), max_size=3)))
    percents = sorted(draw(st.sets(st.integers(1, 99), max_size=3)))
    return (
        *(WaveSize(count=count) for count in counts),
        *(WaveSize(percent=percent) for percent in percents),
        EVERYBODY,
    )


policies = st.builds(
    GatePolicy,
    min_inferences=st.integers(0, 12),
    max_errors_per_mille=st.integers(0, 1000),
    max_failed_installs=st.integers(0, 3),
    on_failure=st.sampled_from(FailureAction),
)


@st.composite
def _groups(draw: st.DrawFn) -> GroupEvidence:
    inferences = draw(st.sampled_from([0, 3, 12, 900]))
    tally = Tally(
        agent_id=TOGETHER, inferences=inferences, errors=draw(st.integers(0, min(inferences, 12)) | st.just(inferences))
    )
    quiet = draw(st.sampled_from([None, NOW, NOW - timedelta(hours=1)]))
    installed, failed, waiting = draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.sampled_from([0, 0, 1]))
    return GroupEvidence(
        device_class=draw(st.uuids()).hex,
        installed=installed,
        failed=failed,
        waiting=waiting,
        target=tally,
        quiet_since=quiet,
    )


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    """Drawn close to where verdicts turn: few targets, most of them settled, and inferences around the minimum. By
    device class, or counts alone."""
    installed, failed, waiting = draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.sampled_from([0, 0, 0, 1]))
    wave_inferences, other_inferences = draw(st.integers(0, 8)), draw(st.sampled_from([0, 1, 4, 8, 600, 3000]))
    wave_errors = draw(st.integers(0, wave_inferences))
    inferences, errors = (
        wave_inferences + other_inferences,
        wave_errors + draw(st.integers(0, min(other_inferences, 60))),
    )
    groups = tuple(draw(st.lists(_groups(), max_size=3)))
    if groups:
        installed = sum(group.installed for group in groups)
        failed = sum(group.failed for group in groups)
        waiting = sum(group.waiting for group in groups)
        inferences = sum(group.target.inferences for group in groups)
        errors = sum(group.target.errors for group in groups)
        wave_inferences = wave_errors = 0
    away, taken_up = draw(st.sampled_from([0, 0, 1])), draw(st.integers(0, 8))
    return Evidence(
        targets=installed + failed + waiting + away,
        installed=installed,
        failed=failed,
        inferences=inferences,
        errors=errors,
        wave_inferences=wave_inferences,
        wave_errors=wave_errors,
        wave_age_seconds=draw(st.integers(0, 4)),
        away=away,
        taken_up=taken_up,
        silent_taken_up=draw(st.integers(0, taken_up)),
        silent_others_per_mille=draw(st.sampled_from([0, 500])),
        groups=groups,
    )


@st.composite
def verdicts(draw: st.DrawFn) -> GateVerdict:
    return GateVerdict(
        outcome=draw(st.sampled_from(GateOutcome)),
        reason="DRAWN",
        message="drawn",
        evidence=draw(evidences()).counts(),
        evaluate_time=NOW,
    )


progresses = st.builds(
    Progress,
    waiting=st.just(()),
    silent=st.just(()),
    returning=st.sampled_from([(), (AgentId("st-1"),), (AgentId("st-1"), AgentId("st-2"))]),
    stuck=st.just(()),
    missing=st.just(()),
)
