"""Trainers: commands that make a candidate from a dataset and a base version."""

from dataclasses import dataclass, field

from controlplane.domain.ids import check_resource_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """A command with the documented contract, and the bounds of a run of it."""

    id: str
    """By which runs choose it; looks like a resource id."""
    command: tuple[str, ...]
    time_limit_seconds: float
    memory_bytes_max: int
    """Of all its processes together."""
    output_bytes_max: int
    """Of everything that it writes, scratch included."""
    description: str = ""
    network: bool = False
    """It may open TCP connections. Without it the kernel refuses, where it can."""
    read_paths: tuple[str, ...] = ()
    """Absolute paths that it may read besides the system, its own interpreter and its inputs."""
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Variables that it is given besides a scrubbed environment; may hold its secrets, never the controller's."""

    def __post_init__(self) -> None:
        check_resource_id(self.id, field="trainer")
        assert self.command
