"""Which results are reported one by one. Windows count all of them whatever it says."""

import zlib
from dataclasses import dataclass
from enum import StrEnum


class ResultKeep(StrEnum):
    ALL = "ALL"
    DOUBTFUL = "DOUBTFUL"
    """All but the confident good."""
    ONE_IN = "ONE_IN"
    """One in `one_in`, and every failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultPolicy:
    keep: ResultKeep = ResultKeep.ALL
    good_labels: tuple[str, ...] = ()
    good_score_min: float = 0.0
    one_in: int = 0

    def keeps(self, *, failed: bool, label: str, score: float, batch: int, index: int) -> bool:
        """Whether to report the result at that place of that batch, whose best label this is ("" without one). The
        same place is answered the same however often it is asked: a batch that is sent again is the same batch."""
        if failed or self.keep is ResultKeep.ALL:
            return True
        if self.keep is ResultKeep.DOUBTFUL:
            return label not in self.good_labels or score < self.good_score_min
        return zlib.crc32(f"{batch}/{index}".encode()) % max(1, self.one_in) == 0
