"""What was kept lately, and whether the next is the same again.

Rules kept here: the same bytes are never kept twice within the memory; what chance picked is only held against the same
bytes, since an unbiased share shows a line that sees much of the same as it is.
"""

from collections import OrderedDict


class RecentlyKept:
    """Of one slot; not thread-safe. Remembers the last `remembered_max`."""

    def __init__(self, remembered_max: int) -> None:
        self._remembered_max = remembered_max
        self._kept: OrderedDict[str, int | None] = OrderedDict()
        """Difference hashes by fingerprint of the bytes, oldest first; None where the content is no image."""

    def near(self, picture_hash: int | None, bits_max: int) -> bool:
        """Whether an image that was kept differs in at most `bits_max` bits of its hash; 0 asks for no such thing."""
        if picture_hash is None or bits_max <= 0:
            return False
        return any(kept is not None and (kept ^ picture_hash).bit_count() <= bits_max for kept in self._kept.values())

    def same(self, fingerprint: str) -> bool:
        return fingerprint in self._kept

    def add(self, fingerprint: str, picture_hash: int | None) -> None:
        self._kept[fingerprint] = picture_hash
        self._kept.move_to_end(fingerprint)
        if len(self._kept) > self._remembered_max:
            self._kept.popitem(last=False)
