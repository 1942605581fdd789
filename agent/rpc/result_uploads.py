"""Putting files of results straight into the object store, where the controller gives leave."""

from collections.abc import Mapping

import aiohttp
import structlog

from agent import limits

_log = structlog.get_logger()


class ResultUploads:
    """One per agent, in one event loop. After a failure it rests for some batches: a box that cannot reach the store
    sends its results to the controller as before."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._resting = 0

    def wanted(self, size_bytes: int) -> bool:
        """Whether to try for a file of that size now."""
        if size_bytes < limits.UPLOAD_FILE_BYTES_MIN:
            return False
        if self._resting:
            self._resting -= 1
            return False
        return True

    def rest(self, error: object) -> None:
        """Do without for a while."""
        self._resting = limits.UPLOAD_REST_BATCHES
        _log.warning("result_upload_failed", error=str(error), batches_without=self._resting)

    async def put(self, url: str, content: bytes, *, headers: Mapping[str, str]) -> bool:
        """Put the content; False, and some rest, where the store does not take it."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=limits.UPLOAD_SECONDS_MAX))
        try:
            async with self._session.put(url, data=content, headers=headers) as response:
                if response.status < 300:
                    return True
                self.rest(f"status {response.status}")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # The address says what may be written: it is not for a log.
            self.rest(type(error).__name__)
        return False

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
