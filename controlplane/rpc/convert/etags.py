"""Etags: the revision of a resource, opaque to clients (AIP-154)."""

from controlplane.domain.errors import StaleWriteError


def etag_of(revision: int) -> str:
    """Return the etag of a revision."""
    return str(revision)


def parse_etag(etag: str) -> int | None:
    """Return the revision, None for no etag; raise StaleWriteError for a text that was never an etag."""
    if not etag:
        return None
    if not (etag.isascii() and etag.isdigit() and len(etag) <= 18):
        raise StaleWriteError(
            f"{etag[:64]!r} is not the current etag", field="etag", remedy="read the resource again, and decide again"
        )
    return int(etag)
