"""Which results a box reports one by one. Windows count all of them whatever it says."""

from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.errors import FieldInvalidError


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
    """With DOUBTFUL: labels that count as good."""
    good_score_min: float = 0.0
    """With DOUBTFUL: the score from which a good one is confident."""
    one_in: int = 0
    """With ONE_IN: at least 2."""

    def __post_init__(self) -> None:
        doubtful, thinned = self.keep is ResultKeep.DOUBTFUL, self.keep is ResultKeep.ONE_IN
        if bool(self.good_labels) != doubtful:
            raise _refused(
                "good_labels",
                f"{len(self.good_labels)} labels with {self.keep}",
                "name the labels that count as good with DOUBTFUL, and none otherwise",
            )
        if not 0.0 <= self.good_score_min <= 1.0 or (self.good_score_min > 0.0 and not doubtful):
            raise _refused(
                "good_score_min", f"{self.good_score_min} with {self.keep}", "use a score from 0 to 1 with DOUBTFUL"
            )
        if (self.one_in >= 2) != thinned or (self.one_in != 0 and not thinned):
            raise _refused("one_in", f"{self.one_in} with {self.keep}", "use 2 or more with ONE_IN, and 0 otherwise")


def _refused(name: str, message: str, remedy: str) -> FieldInvalidError:
    return FieldInvalidError(message, field=f"deployment.result_policy.{name}", remedy=remedy)
