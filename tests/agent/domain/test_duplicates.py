"""What was kept lately, and whether the next is the same again."""

from hypothesis import given
from hypothesis import strategies as st

from agent.domain.duplicates import RecentlyKept

hashes = st.integers(0, (1 << 64) - 1)


@given(hashes, st.lists(st.integers(0, 63), unique=True, max_size=20), st.integers(0, 20))
def test_near_is_counted_in_bits(kept: int, flipped: list[int], bits_max: int) -> None:
    recent = RecentlyKept(8)
    recent.add("a", kept)
    other = kept
    for bit in flipped:
        other ^= 1 << bit
    assert recent.near(other, bits_max) == (0 < bits_max >= len(flipped))


def test_only_so_much_is_remembered_and_what_came_again_longest() -> None:
    recent = RecentlyKept(2)
    for digest in ("a", "b", "a", "c"):
        recent.add(digest, None)
    assert [recent.same(digest) for digest in ("a", "b", "c")] == [True, False, True]
    assert not recent.near(None, 64)
