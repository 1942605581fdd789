"""Versions that answer, what is counted of each, and what becomes of a request's outputs."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime

from agent import limits
from agent.app.ports import LoadedModel, Tensor
from agent.app.readings import labels_of_items
from agent.app.tallies import Tally, TallyKey
from agent.app.turns import Turns
from agent.domain.artifact import ModelSignature
from agent.domain.interpretation import Reading
from agent.domain.result import LabelScore, Outcome, Result
from agent.domain.slot import DesiredSlot


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What answers for a slot now."""

    slot: str
    version: int
    device: str
    signature: ModelSignature


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counts of a slot's serving version since it began to serve; they only grow. `inferences` counts batch items,
    `requests` whole requests. Of the time from a request's arrival to its answer, `input_seconds` went into checking
    its inputs, `queue_seconds` into waiting for its turn, `infer_seconds` into the inference, `output_seconds` into its
    results."""

    model: ServedModel
    requests: int = 0
    inferences: int = 0
    failed: int = 0
    total_seconds: float = 0.0
    failed_seconds: float = 0.0
    input_seconds: float = 0.0
    queue_seconds: float = 0.0
    infer_seconds: float = 0.0
    output_seconds: float = 0.0
    last_time: datetime | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Served:
    """A loaded version; the counters are guarded by Serving's lock."""

    desired: DesiredSlot
    loaded: LoadedModel
    model: ServedModel
    reading: Reading | None
    tally: Tally
    turns: Turns
    counted: "Counted"
    users: int = 0
    lots: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)
    """Applications and lots that it has begun, the newest last."""
    keep_until: float = 0.0
    """Once retired: the monotonic seconds until which its lots are its own."""
    named_until: float = 0.0
    """Once retired: the same for requests that name its version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    served: Served
    until: float
    on_swap: Callable[[], None]


@dataclass(slots=True)
class Counted:
    """As Statistics, growing in place."""

    requests: int = 0
    inferences: int = 0
    failed: int = 0
    total_seconds: float = 0.0
    failed_seconds: float = 0.0
    input_seconds: float = 0.0
    queue_seconds: float = 0.0
    infer_seconds: float = 0.0
    output_seconds: float = 0.0
    last_time: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Request:
    """What goes into a request's results, and the monotonic seconds at which its stages ended."""

    part_id: str
    request_id: str
    application: str
    lot: str
    begin_until: float
    has_deadline: bool
    """`begin_until` is its deadline, and no bound of ours."""
    deadline: float | None
    """Monotonic seconds, also where a bound of ours comes first."""
    infer_time: datetime
    begun: float
    checked: float = 0.0
    started: float = 0.0
    """Where the inference began."""
    inferred: float = 0.0
    done: float = 0.0


def statistics_of(served: Served) -> Statistics:
    """Call with Serving's lock held."""
    return Statistics(model=served.model, **{each.name: getattr(served.counted, each.name) for each in fields(Counted)})


def tally_key(model: ServedModel) -> TallyKey:
    return model.slot, model.version, model.device


def results_of(
    served: Served, request: Request, arrays: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> tuple[Result, ...]:
    """One a batch item."""
    rows = labels_of_items(served.model.signature, served.reading, arrays, outputs)
    return tuple(result_of(served, request, index, labels=labels) for index, labels in enumerate(rows))


def result_of(
    served: Served,
    request: Request,
    index: int,
    *,
    labels: tuple[LabelScore, ...] = (),
    outcome: Outcome = Outcome.OK,
    error: str = "",
) -> Result:
    return Result(
        slot=served.model.slot,
        version=served.model.version,
        device=served.loaded.device,
        infer_time=request.infer_time,
        part_id=request.part_id,
        request_id=request.request_id,
        outcome=outcome,
        labels=labels,
        latency_us=round((request.inferred - request.begun) * 1e6),
        error=error[: limits.ERROR_CHARS_MAX],
        batch_index=index,
        lot=request.lot,
        application=request.application,
    )
