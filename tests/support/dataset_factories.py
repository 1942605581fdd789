"""Labels, items of datasets and pictures with sensible values, each field open to an override."""

import io
from typing import Any

import numpy as np
from PIL import Image

from controlplane.domain.dataset import Dataset, DatasetItem, DatasetRule
from controlplane.domain.label import Label
from controlplane.domain.split import Split
from tests.support.factories import NOW, digest_of


def make_label(**overrides: Any) -> Label:
    fields: dict[str, Any] = {
        "id": "0001",
        "model_id": "solar",
        "sample_id": "sample-1",
        "annotator": "anna",
        "create_time": NOW,
        "label": "good",
    }
    return Label(**(fields | overrides))


def make_item(**overrides: Any) -> DatasetItem:
    sample_id = overrides.get("sample_id", "sample-1")
    fields: dict[str, Any] = {
        "sample_id": sample_id,
        "digest": digest_of(sample_id),
        "content_type": "image/png",
        "split": Split.TRAIN,
        "label": "good",
        "annotators": ("anna",),
        "label_ids": ("0001",),
        "capture_time": NOW,
    }
    return DatasetItem(**(fields | overrides))


def make_dataset(**overrides: Any) -> Dataset:
    number = overrides.get("number", 1)
    fields: dict[str, Any] = {
        "id": f"solar-{number}",
        "model_id": "solar",
        "number": number,
        "create_time": NOW,
        "creator": "operators/anna",
        "description": "",
        "digest": digest_of(f"dataset {number}"),
        "training_manifest": digest_of(f"training {number}"),
        "holdout_manifest": digest_of(f"holdout {number}"),
        "rule": DatasetRule(),
        "counts": (),
    }
    return Dataset(**(fields | overrides))


def picture(seed: int, *, format: str = "PNG", size: tuple[int, int] = (48, 40), mode: str = "L", **save: Any) -> bytes:
    """A picture of coarse noise: two seeds are far apart, one seed in another format or size is near itself."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    packed = io.BytesIO()
    image.save(packed, format=format, **save)
    return packed.getvalue()
