"""How much an item counts: what is new on the line is rare at first, and what is old must not drown it.

The weight of an item in the dataset (its freeze says how) is multiplied by a factor where the item is new: captured at
or after the parameter `newest_since`, or, without that, kept by an agent rather than imported with the first training
set. The factor makes new items together count as much as old ones together, but is never below 1, and never above
the parameter `newest_weight`, which is 4 unless the run says otherwise. docs/training.md tells what was measured.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from controlplane.trainers.contract import Item, Task, TrainerError

PARAMETERS = frozenset({"newest_weight", "newest_since"})
_NEWEST_WEIGHT_MAX = 4.0


def weights_of(task: Task, items: Sequence[Item]) -> npt.NDArray[np.float64]:
    """Return the weight of each item, all above 0. Raises TrainerError for parameters or items that cannot be right."""
    most = task.number("newest_weight", _NEWEST_WEIGHT_MAX, least=1.0, most=1000.0)
    since = _time(task.text("newest_since"), "parameter newest_since")
    weights = np.array([item.weight for item in items])
    if not ((weights > 0) & np.isfinite(weights)).all():
        raise TrainerError("an item has a weight that is not above 0; freeze the dataset with other weights")
    is_new = np.array([_is_new(item, since) for item in items], dtype=bool)
    if is_new.all() or not is_new.any():
        return weights
    factor = min(max(weights[~is_new].sum() / weights[is_new].sum(), 1.0), most)
    print(f"{is_new.sum()} new items of {len(items)} count {factor:.2f} times", flush=True)
    weights[is_new] *= factor
    return weights


def _is_new(item: Item, since: datetime | None) -> bool:
    if since is None:
        return bool(item.agent)
    captured = _time(item.capture_time, f"the capture time of {item.path.name}")
    return captured is not None and captured >= since


def _time(text: str, what: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise TrainerError(f"{what} is {text[:100]!r}; write it as 2026-03-01T12:00:00Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
