"""A result as the log keeps it, in as few steps as can be: a thread that has just inferred finds none of its code in
the caches, so that what is written for each result costs several times what it does alone.

    infer_time (i64, microseconds since 1970 UTC) version (i64) latency_us (i64) batch_index (u32) outcome (u8)
    labels (u8) a score (f64) for each, then in UTF-8, a NUL between each two: slot, device, part_id, request_id, lot,
    application, a label for each, error
All numbers are little-endian. The error comes last, since it alone may hold a NUL.
"""

import struct
from datetime import timedelta

from agent.app.evidence import EPOCH, micros_since_epoch
from agent.domain.interpretation import LABELS_MAX
from agent.domain.result import LabelScore, Outcome, Result

_NUMBERS = tuple(struct.Struct(f"<qqqIBB{count}d") for count in range(LABELS_MAX + 1))
"""By the number of labels."""
_TEXTS = 6
"""Before the labels."""
_OUTCOMES = (Outcome.OK, Outcome.ERROR)


def encode(result: Result) -> bytes:
    labels = result.labels
    numbers = _NUMBERS[len(labels)].pack(
        micros_since_epoch(result.infer_time),
        result.version,
        result.latency_us,
        result.batch_index,
        0 if result.outcome is Outcome.OK else 1,
        len(labels),
        *[label.score for label in labels],
    )
    texts = (
        result.slot,
        result.device,
        result.part_id,
        result.request_id,
        result.lot,
        result.application,
        *[label.label for label in labels],
        result.error,
    )
    return numbers + "\0".join(texts).encode(errors="replace")


def decode(content: bytes) -> Result:
    """What `encode` was given, its time to the microsecond."""
    micros, version, latency_us, batch_index, outcome, count = _NUMBERS[0].unpack_from(content)
    numbers = _NUMBERS[count]
    scores = numbers.unpack_from(content)[-count:] if count else ()
    slot, device, part_id, request_id, lot, application, *labels, error = (
        content[numbers.size :].decode().split("\0", _TEXTS + count)
    )
    return Result(
        slot=slot,
        version=version,
        device=device,
        infer_time=EPOCH + timedelta(microseconds=micros),
        part_id=part_id,
        request_id=request_id,
        outcome=_OUTCOMES[outcome],
        labels=tuple(LabelScore(label=label, score=score) for label, score in zip(labels, scores, strict=True)),
        latency_us=latency_us,
        error=error,
        batch_index=batch_index,
        lot=lot,
        application=application,
    )
