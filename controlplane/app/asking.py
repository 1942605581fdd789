"""Asking a model about kept inputs: its files and their contents put together out of the object store, in one way for
whoever asks."""

import tempfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from controlplane.app.model_files import fetch_files
from controlplane.app.ports import BlobStore
from controlplane.app.ports_judging import Evaluator, SampleContent
from controlplane.domain.catalog import Artifact
from controlplane.domain.errors import ResourceNotFoundError
from controlplane.domain.ids import Digest


class KeptInput(Protocol):
    """A sample, or an item of a dataset."""

    @property
    def digest(self) -> Digest: ...
    @property
    def content_type(self) -> str: ...


async def ask(
    artifact: Artifact,
    inputs: Sequence[KeptInput],
    *,
    labels: Collection[str],
    blobs: BlobStore,
    evaluator: Evaluator,
    workspace: Path,
) -> Sequence[Mapping[str, float] | None]:
    """What the model says of each input, as `Evaluator.evaluate` has it; None also for one whose content is lost.
    Raises FieldInvalidError where the model cannot be asked, ResourceNotFoundError where its files are lost."""
    with tempfile.TemporaryDirectory(prefix="ask-", dir=workspace) as name:
        folder = Path(name)
        await fetch_files(blobs, artifact, folder)
        return await evaluator.evaluate(folder, _contents(blobs, inputs), labels=labels)


async def _contents(blobs: BlobStore, inputs: Sequence[KeptInput]) -> AsyncIterator[SampleContent]:
    for kept in inputs:
        try:
            content = b"".join([piece async for piece in blobs.read(kept.digest)])
        except ResourceNotFoundError:
            # Lost in the object store: it is left out, and counted with what cannot be read.
            yield SampleContent(content_type="", content=b"")
        else:
            yield SampleContent(content_type=kept.content_type, content=content)
