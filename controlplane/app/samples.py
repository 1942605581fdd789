"""Samples: contents as blobs, rows once. An agent stores its own only; operators list and read all."""

import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace

from controlplane import limits
from controlplane.app.batching import SharedReads, SharedWrites
from controlplane.app.evidence import storable, within_bounds
from controlplane.app.paging import (
    Page,
    clamp_page_size,
    decode_page_token,
    decode_token_time,
    encode_page_token,
    page_of,
)
from controlplane.app.ports import BlobStore, Clock, Store
from controlplane.app.retries import retry_stale
from controlplane.domain.errors import FieldInvalidError, ForbiddenError, Reason
from controlplane.domain.ids import AgentId, ModelId, SampleId, check_digest, check_resource_id
from controlplane.domain.lake import Place
from controlplane.domain.sample import Sample, SampleReason

CONTENT_TYPES = frozenset({"image/png", "application/x-npy"})


class Samples:
    """Stores, lists and reads samples."""

    def __init__(self, *, store: Store, blobs: BlobStore, clock: Clock) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._owners = SharedReads(self._find_owners)
        self._rows = SharedWrites(self._add_all, at_once_max=limits.SAMPLES_WRITTEN_AT_ONCE)

    async def store(self, sample: Sample, content: bytes) -> bool:
        """Store the sample as received now; return whether it was stored before. `sample.agent_id` is the agent
        that calls. Raises FieldInvalidError (also DIGEST_MISMATCH) for content that is not what the sample
        says, ForbiddenError (NOT_YOURS) when another agent has stored this id."""
        check_sample(sample, content)
        if await self._is_stored(sample):
            return True
        # The blob first: a row never names a content that is not there.
        await self._blobs.put_bytes(sample.digest, content)
        received = replace(
            sample,
            create_time=self._clock.now(),
            result=within_bounds(sample.result),
            input_name=storable(sample.input_name),
        )
        return not await self._rows.write(received) and await self._is_stored(sample)

    async def _is_stored(self, sample: Sample) -> bool:
        owner = await self._owners.find(sample.id)
        if owner is not None and owner != sample.agent_id:
            raise ForbiddenError(
                f"sample {sample.id} is another agent's",
                field="sample_id",
                remedy="begin ids with the agent's own id",
                reason=Reason.NOT_YOURS,
            )
        return owner is not None

    async def _find_owners(self, sample_ids: Collection[SampleId]) -> Mapping[SampleId, AgentId]:
        async with self._store.read() as work:
            return {stored.id: stored.agent_id for stored in await work.samples.list_of(sample_ids)}

    async def _add_all(self, received: Sequence[Sample]) -> Sequence[bool]:
        """Whether each was new."""

        async def attempt() -> Sequence[bool]:
            async with self._store.write() as work:
                # Where the agents are now: they may stand on another line when the samples are looked at.
                agents = await work.agents.list_of({sample.agent_id for sample in received})
                places = {each.agent.id: Place.of(each.agent.labels) for each in agents}
                return [
                    await work.samples.add(replace(sample, place=places.get(sample.agent_id, Place())))
                    for sample in received
                ]

        return await retry_stale(attempt)

    async def get(self, sample_id: SampleId) -> Sample:
        async with self._store.read() as work:
            return await work.samples.get(sample_id)

    async def list(
        self,
        *,
        model_id: ModelId | None = None,
        agent_id: AgentId | None = None,
        reason: SampleReason | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> Page[Sample]:
        """Newest first."""
        size = clamp_page_size(page_size)
        key = decode_page_token(page_token, str, str)
        before = (decode_token_time(str(key[0])), SampleId(str(key[1]))) if key else None
        async with self._store.read() as work:
            samples = await work.samples.list(
                model_id=model_id, agent_id=agent_id, reason=reason, before=before, limit=size + 1
            )
        return page_of(samples, size, lambda sample: encode_page_token(sample.create_time.isoformat(), sample.id))

    async def read_content(self, sample_id: SampleId) -> AsyncIterator[bytes]:
        """Yield the content in chunks of at most 1 MiB."""
        sample = await self.get(sample_id)
        async for chunk in self._blobs.read(sample.digest):
            yield chunk


def check_sample(sample: Sample, content: bytes) -> None:
    """Raise FieldInvalidError unless the content is what the sample says."""
    check_resource_id(sample.id, field="sample_id")
    check_digest(sample.digest, field="sample.digest")
    if len(content) > limits.SAMPLE_BYTES_MAX:
        raise FieldInvalidError(
            f"{len(content)} bytes are more than {limits.SAMPLE_BYTES_MAX}",
            field="content",
            remedy="keep smaller inputs only",
        )
    if sample.content_type not in CONTENT_TYPES:
        raise FieldInvalidError(
            f"{sample.content_type[:100]!r} is no content type of a sample",
            field="sample.content_type",
            remedy=f"send {' or '.join(sorted(CONTENT_TYPES))}",
        )
    if sample.size_bytes != len(content):
        raise FieldInvalidError(
            f"{len(content)} bytes came, not {sample.size_bytes}",
            field="sample.size_bytes",
            remedy="state the size of the content",
        )
    came = "sha256:" + hashlib.sha256(content).hexdigest()
    if came != sample.digest:
        raise FieldInvalidError(
            f"the content has the digest {came}, not {sample.digest}",
            field="sample.digest",
            remedy="send the sample again from the spool: nothing was kept",
            reason=Reason.DIGEST_MISMATCH,
        )
