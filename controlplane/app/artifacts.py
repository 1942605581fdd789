"""Model bytes for agents: an agent reads only blobs of versions that are assigned to it."""

from collections.abc import AsyncIterator

from controlplane.app.ports import BlobStore, Store
from controlplane.domain.errors import ForbiddenError, Reason
from controlplane.domain.ids import AgentId, check_digest


class Artifacts:
    """Hands out blobs."""

    def __init__(self, *, store: Store, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    async def read(self, agent_id: AgentId, digest: str, *, offset_bytes: int = 0) -> AsyncIterator[bytes]:
        """Yield the blob from the offset on, in chunks of at most 1 MiB. Raises ForbiddenError (NOT_YOURS) unless a
        version that the agent should run has a file with this digest, whether or not such a blob exists."""
        blob = check_digest(digest, field="digest")
        async with self._store.read() as work:
            assigned = await work.desired.is_assigned(agent_id, blob)
        if not assigned:
            raise ForbiddenError(
                f"no version that agents/{agent_id} should run has a file {blob}",
                field="digest",
                remedy="read the files of the desired state that the last sync brought",
                reason=Reason.NOT_YOURS,
            )
        async for chunk in self._blobs.read(blob, offset_bytes=offset_bytes):
            yield chunk
