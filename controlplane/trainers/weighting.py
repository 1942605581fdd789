"""How much an item counts: what is new on the line is rare at first, and what is old must not drown it.

The weight of an item in the dataset (its freeze says how) is multiplied by `newest_weight`, 4 unless the run says
otherwise, where the item is new: captured at or after the parameter `newest_since`, or, without that, kept by an agent
rather than imported with the first training set. Measured on solar cells whose product changed: four times is where the
new product gains most before the old one loses (docs/training.md).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from controlplane.trainers.contract import Item, Task, TrainerError

PARAMETERS = frozenset({"newest_weight", "newest_since"})
_NEWEST_WEIGHT = 4.0


def weights_of(task: Task, items: Sequence[Item]) -> npt.NDArray[np.float64]:
    """Return the weight of each item, all above 0. Raises TrainerError for parameters or items that cannot be right."""
    factor = task.number("newest_weight", _NEWEST_WEIGHT, least=0.01, most=1000.0)
    since = _time(task.text("newest_since"), "parameter newest_since")
    weights = []
    for item in items:
        if since is None:
            is_new = bool(item.agent)
        else:
            captured = _time(item.capture_time, f"the capture time of {item.path.name}")
            is_new = captured is not None and captured >= since
        weights.append(item.weight * (factor if is_new else 1.0))
    if not all(0 < weight < float("inf") for weight in weights):
        raise TrainerError("an item has a weight that is not above 0; freeze the dataset with other weights")
    return np.array(weights)


def _time(text: str, what: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise TrainerError(f"{what} is {text[:100]!r}; write it as 2026-03-01T12:00:00Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
