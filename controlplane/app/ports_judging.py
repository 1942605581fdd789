"""What judging and triggers need from outside, as Protocols; `ports.py` says what holds for every repository."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from controlplane.domain.ids import ModelId, TrainingRunId
from controlplane.domain.promotion import Promotion, PromotionState
from controlplane.domain.training_policy import TrainingPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleContent:
    """An input as it was kept."""

    content_type: str
    """`image/png` or `application/x-npy`."""
    content: bytes


class Evaluator(Protocol):
    """Asks a model about kept inputs where it can do no harm."""

    async def evaluate(
        self, folder: Path, contents: AsyncIterator[SampleContent], *, labels: Collection[str]
    ) -> Sequence[Mapping[str, float] | None]:
        """Return what the model whose files lie in `folder` says of each input, in their order: the scores of these
        labels and of the best, or None where the input cannot be put to it or it gives no scores.

        Raises FieldInvalidError (MODEL_UNREADABLE, field "artifact") saying what is wrong where the model cannot be
        asked at all: it has no classes or several inputs, or running it crashes, hangs or takes too much memory."""
        ...


class PromotionRepository(Protocol):
    """Promotions, at most one a run."""

    async def add(self, promotion: Promotion) -> None: ...
    async def get(self, run_id: TrainingRunId) -> Promotion:
        """Resource "trainingRuns/{id}/promotion"."""
        ...

    async def find(self, run_id: TrainingRunId) -> Promotion | None: ...
    async def find_version(self, model_id: ModelId, version: int) -> Promotion | None:
        """The first that became this version."""
        ...

    async def save(self, promotion: Promotion) -> Promotion: ...
    async def list(self, *, model_id: ModelId | None, before: str | None, limit: int) -> Sequence[Promotion]:
        """Newest first, by uid."""
        ...

    async def list_in(self, states: Collection[PromotionState]) -> Sequence[Promotion]:
        """Every one in these states, oldest first."""
        ...


class TrainingPolicyRepository(Protocol):
    """Training policies, at most one a model."""

    async def add(self, policy: TrainingPolicy) -> None: ...
    async def get(self, model_id: ModelId) -> TrainingPolicy:
        """Resource "models/{id}/trainingPolicy"."""
        ...

    async def find(self, model_id: ModelId) -> TrainingPolicy | None: ...
    async def save(self, policy: TrainingPolicy) -> TrainingPolicy: ...
    async def list(self, *, after: ModelId | None, limit: int) -> Sequence[TrainingPolicy]:
        """By model."""
        ...
