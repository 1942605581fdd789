"""Contact sheets: what is in a dataset, at one look."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from controlplane import limits
from controlplane.app.datasets import Datasets
from controlplane.app.ports_datasets import SheetPainter
from controlplane.domain.dataset import DatasetItem
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import DatasetId


class ContactSheets:
    """Draws what is in datasets."""

    def __init__(self, *, datasets: Datasets, painter: SheetPainter) -> None:
        self._datasets = datasets
        self._painter = painter

    async def draw(self, dataset_id: DatasetId, *, released_to: str | None = None, pictures_max: int = 0) -> bytes:
        """Return a PNG: a row each split and class, of at most so many pictures, evenly from all of them. With
        `released_to` the holdout instead of what a trainer is given; the audit log keeps that."""
        if not 0 <= pictures_max <= limits.SHEET_PICTURES_MAX:
            raise FieldInvalidError(
                f"{pictures_max} pictures", field="pictures_max", remedy=f"ask for 1 to {limits.SHEET_PICTURES_MAX}"
            )
        if released_to is None:
            items = await self._datasets.items(dataset_id)
        else:
            items = await self._datasets.release_holdout(dataset_id, actor=released_to, purpose="a contact sheet")
        by_row: dict[str, list[DatasetItem]] = defaultdict(list)
        for item in items:
            by_row[f"{item.split.value.lower()}: {item.label}"].append(item)
        rows = [
            (f"{name} ({len(by_row[name])})", await self._contents(by_row[name], pictures_max))
            for name in sorted(by_row)[: limits.SHEET_ROWS_MAX]
        ]
        left = len(by_row) - len(rows)
        title = f"datasets/{dataset_id}: {len(items)} samples" + (f", {left} more classes" if left else "")
        return await asyncio.to_thread(self._painter.paint, rows, title=title)

    async def _contents(self, items: Sequence[DatasetItem], pictures_max: int) -> Sequence[bytes]:
        wanted = min(len(items), pictures_max or limits.SHEET_PICTURES_DEFAULT)
        chosen = [items[place * len(items) // wanted] for place in range(wanted)]
        return [await self._datasets.content(item.digest) for item in chosen]
