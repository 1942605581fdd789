"""What a window may say of its inputs."""

import math
import re
from collections.abc import Mapping

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.evidence import Histogram

INPUT_BINS = 32
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def check_input_statistics(statistics: Mapping[str, Histogram]) -> None:
    """Raise FieldInvalidError unless these are histograms that merge with others: 32 bins over a finite range."""
    if len(statistics) > limits.INPUT_STATISTICS_MAX:
        raise FieldInvalidError(
            f"{len(statistics)} statistics",
            field="windows.input_statistics",
            remedy=f"send at most {limits.INPUT_STATISTICS_MAX}",
        )
    for name, one in statistics.items():
        if not _NAME.fullmatch(name):
            raise FieldInvalidError(
                f"{name[:80]!r} is no name",
                field="windows.input_statistics.name",
                remedy="use lower_snake, at most 63 characters",
            )
        if not (math.isfinite(one.low) and math.isfinite(one.high) and one.low < one.high):
            raise FieldInvalidError(
                f"{one.low} to {one.high} is no range", field="windows.input_statistics.low", remedy="send low < high"
            )
        if len(one.bin_counts) != INPUT_BINS or min(one.bin_counts) < 0:
            raise FieldInvalidError(
                f"{len(one.bin_counts)} bins, or a count below 0",
                field="windows.input_statistics.bin_counts",
                remedy=f"send {INPUT_BINS} counts",
            )
