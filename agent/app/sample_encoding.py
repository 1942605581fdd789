"""A sample's content, its description and its id."""

import hashlib
import io
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from lineside.v1 import sample_pb2

from agent.app.evidence import result_message, timestamp
from agent.app.input_statistics import is_image
from agent.app.ports import Tensor
from agent.domain.input_statistics import InputStatistics
from agent.domain.result import Result, SampleReason
from agent.domain.sampling import Pick

_REASONS: Mapping[SampleReason, "sample_pb2.Sample.Reason.ValueType"] = {
    SampleReason.RANDOM: sample_pb2.Sample.REASON_RANDOM,
    SampleReason.LEAST_CONFIDENCE: sample_pb2.Sample.REASON_LEAST_CONFIDENCE,
    SampleReason.MARGIN: sample_pb2.Sample.REASON_MARGIN,
    SampleReason.ENTROPY: sample_pb2.Sample.REASON_ENTROPY,
    SampleReason.CLASS_QUOTA: sample_pb2.Sample.REASON_CLASS_QUOTA,
    SampleReason.OUTLIER: sample_pb2.Sample.REASON_OUTLIER,
    SampleReason.SHADOW_DISAGREEMENT: sample_pb2.Sample.REASON_SHADOW_DISAGREEMENT,
}
PNG = "image/png"
NPY = "application/x-npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What is kept of an input, exact to the bit."""

    content_type: str
    data: bytes
    digest: str


def content_of(tensor: Tensor) -> Content:
    content_type, data = encode(tensor)
    return Content(content_type=content_type, data=data, digest=f"sha256:{hashlib.sha256(data).hexdigest()}")


def fingerprint_of(tensor: Tensor) -> str:
    """Equal for equal tensors of numbers, and for no others."""
    hashed = hashlib.sha256(f"{tensor.dtype} {tensor.shape} ".encode())
    hashed.update(np.ascontiguousarray(tensor).tobytes())
    return hashed.hexdigest()


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


def description(
    content: Content,
    *,
    input_name: str,
    result: Result,
    pick: Pick,
    statistics: InputStatistics | None,
    capture_time: datetime,
) -> sample_pb2.Sample:
    """The sample as it is uploaded, but for its name."""
    return sample_pb2.Sample(
        capture_time=timestamp(capture_time),
        reason=_REASONS[pick.reason],
        result=result_message(result),
        content_type=content.content_type,
        digest=content.digest,
        size_bytes=len(content.data),
        input_name=input_name,
        value=pick.value,
        input_statistics=statistics.named() if statistics is not None else None,
        label_hint=result.labels[0].label if result.labels else "",
    )


def new_sample_id(time: datetime) -> str:
    """Unique for good, sorts by time to the millisecond, and is a lower-case RFC-1123 id."""
    milliseconds = int(time.astimezone(UTC).timestamp() * 1_000)
    return f"s{milliseconds:012x}-{secrets.token_hex(10)}"
