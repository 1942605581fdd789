"""What has drifted now."""

from collections.abc import Sequence

from controlplane.app.ports import UnitOfWork
from controlplane.domain.drift import Drift
from controlplane.domain.drift_slot import is_current
from controlplane.domain.ids import ModelId


async def find_flagged(uow: UnitOfWork, model_id: ModelId | None = None) -> Sequence[Drift]:
    """Return the drifts of the model, or of every model, that are DRIFTED now, by agent: of agents that are not revoked
    and, as far as they were heard of, serve the version still."""
    drifted = await uow.drifts.list_flagged(model_id)
    records = {record.agent.id: record for record in await uow.agents.list_of({one.agent_id for one in drifted})}
    return [drift for drift in drifted if is_current(drift, records.get(drift.agent_id))]
