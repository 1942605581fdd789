"""The files of a model in a folder, as whoever reads or runs it wants them."""

from pathlib import Path

from controlplane.app.ports import BlobStore
from controlplane.domain.catalog import Artifact


async def fetch_files(blobs: BlobStore, artifact: Artifact, folder: Path) -> None:
    """Put every file of the artifact below `folder`, verified. Raises ResourceNotFoundError where one is lost."""
    for file in artifact.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        await blobs.fetch(file.digest, path)
