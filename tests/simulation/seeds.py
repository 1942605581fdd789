"""Seeds that broke something once: kept in `seeds.txt`, one a line, and replayed by the tests."""

from collections.abc import Iterable
from pathlib import Path

SEEDS_FILE = Path(__file__).with_name("seeds.txt")


def kept_seeds() -> tuple[int, ...]:
    """Return the seeds, in order."""
    if not SEEDS_FILE.exists():
        return ()
    lines = (line.partition("#")[0].strip() for line in SEEDS_FILE.read_text().splitlines())
    return tuple(sorted({int(line) for line in lines if line}))


def keep_seeds(seeds: Iterable[int]) -> None:
    """Append those that are not kept yet."""
    new = sorted(set(seeds) - set(kept_seeds()))
    if new:
        with SEEDS_FILE.open("a") as file:
            file.writelines(f"{seed}\n" for seed in new)
