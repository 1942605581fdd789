"""What a seed decides: the fleet, how good the versions are, and which faults happen how often."""

import random
from dataclasses import dataclass, field

from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.domain.inventory import Device

SOLAR, WELD = ModelId("solar"), ModelId("weld")
ARTIFACT_BYTES = 1_000_000
"""Of each version's own weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxClass:
    """A kind of box: what makes up a device class."""

    architecture: str
    devices: tuple[Device, ...]


def _device(name: str, *capabilities: str) -> Device:
    return Device(device=name, capabilities=capabilities)


CPU_BOX = BoxClass(architecture="x86_64", devices=(_device("CPU", "FP32", "INT8"),))
GPU_BOX = BoxClass(architecture="x86_64", devices=(_device("CPU", "FP32", "INT8"), _device("GPU.0", "FP16", "FP32")))
ARM_BOX = BoxClass(architecture="aarch64", devices=(_device("CPU", "FP16", "FP32"),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """How a version behaves at the stations."""

    number: int
    install_failure: float = 0.0
    """Share of installs that fail."""
    error_share: float = 0.0
    """Share of inferences that fail on the boxes in `bad_boxes`."""
    bad_boxes: tuple[BoxClass, ...] = (CPU_BOX, GPU_BOX, ARM_BOX)
    slowness: float = 1.0
    """Its latency, as a multiple of the usual."""
    deadly: float = 0.0
    """Share of boxes that fall silent once it serves."""
    agreement: float = 1.0
    """Share of inputs on which it agrees with its predecessor, in shadow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One box at a line."""

    agent_id: AgentId
    site: str
    line: str
    box: BoxClass
    busy: bool
    """Whether parts come by; an idle station infers nothing."""
    skew_seconds: float
    """Its clock less the controller's."""
    disk_full_until: float
    """Seconds from the start until which nothing can be fetched."""
    late: bool = False

    @property
    def labels(self) -> dict[str, str]:
        return {"site": self.site, "line": self.line}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A deployment that exists from the start."""

    deployment_id: DeploymentId
    model_id: ModelId
    selector: str
    version: int | None
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, and how often."""

    loss: float = 0.0
    """Share of messages that are lost, in each direction."""
    duplicates: float = 0.0
    """Share of messages that come twice."""
    delay_seconds_max: float = 0.1
    restarts: int = 0
    absences: int = 0
    flaps: int = 0
    partitions: int = 0
    restored_disks: int = 0
    crash_share: float = 0.0
    """Share of the controller's writes at which it dies."""
    stops: int = 0
    """How often a controller is stopped in the middle of its work and woken later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One world, before anything has happened."""

    seed: int
    stations: tuple[Station, ...]
    standing: tuple[Standing, ...]
    versions: dict[ModelId, tuple[Version, ...]]
    faults: Faults
    controllers: int = 1
    commands: int = 0
    inferences_per_window: int = 80
    """Most that a busy station does in WINDOW_SECONDS."""
    acts: dict[str, int] = field(default_factory=dict)
    """How often something else happens: "relabel", "pin", "yank", "revoke"."""
    fault_seconds: float = 180.0
    """Faults and operators act until then."""
    settle_seconds: float = 900.0
    """After the faults everything must have come to rest within so much time."""


def draw_scenario(seed: int) -> Scenario:
    """Return the seed's scenario; some are calm, some rough."""
    rng = random.Random(f"scenario/{seed}")
    rough = rng.random()
    stations = draw_stations(rng, rough)
    versions = {SOLAR: _draw_versions(rng)}
    standing = [
        Standing(
            deployment_id=DeploymentId("solar-all"),
            model_id=SOLAR,
            selector=rng.choice(["agent", "line in (l1,l2)", "site=s1"]),
            version=rng.choice([None, 1, 1]),
        )
    ]
    if rng.random() < 0.35:
        standing.append(
            Standing(deployment_id=DeploymentId("solar-l1"), model_id=SOLAR, selector="line=l1", version=1, priority=10)
        )
    if rng.random() < 0.25:
        versions[WELD] = _draw_versions(rng)
        standing.append(Standing(deployment_id=DeploymentId("weld"), model_id=WELD, selector="agent", version=1))
    return Scenario(
        seed=seed,
        stations=stations,
        standing=tuple(standing),
        versions=versions,
        faults=_draw_faults(rng, rough),
        controllers=rng.choice([1, 1, 2]),
        commands=rng.randint(1, 12),
        acts={
            "relabel": rng.choice([0, 0, 1, 3]),
            "pin": rng.choice([0, 0, 1, 2]),
            "yank": rng.choice([0, 0, 0, 1]),
            "revoke": rng.choice([0, 0, 0, 1]),
        },
    )


def draw_stations(rng: random.Random, rough: float) -> tuple[Station, ...]:
    """Return one to nine boxes at one or two sites."""
    sites, lines = rng.randint(1, 2), rng.randint(1, 2)
    boxes = rng.choice([(CPU_BOX,), (CPU_BOX, GPU_BOX), (CPU_BOX, GPU_BOX, ARM_BOX)])
    count = rng.randint(1, 9)
    return tuple(
        Station(
            agent_id=AgentId(f"st-{number}"),
            site=f"s{rng.randint(1, sites)}",
            line=f"l{rng.randint(1, lines)}",
            box=rng.choice(boxes),
            busy=rng.random() < 0.8,
            skew_seconds=rng.choice([0.0, 0.0, 30.0, -90_000_000.0, 250_000_000.0]),
            disk_full_until=rng.choice([0.0, 0.0, 0.0, 0.0, 60.0, 250.0]) if rough > 0.3 else 0.0,
            late=number > 1 and rng.random() < 0.15,
        )
        for number in range(1, count + 1)
    )


def _draw_versions(rng: random.Random) -> tuple[Version, ...]:
    return tuple(_draw_version(rng, number) for number in range(1, rng.randint(2, 4) + 1))


def _draw_version(rng: random.Random, number: int) -> Version:
    bad_boxes = rng.choice([(CPU_BOX, GPU_BOX, ARM_BOX), (GPU_BOX,), (CPU_BOX,)])
    match rng.randrange(14):
        case 0:
            return Version(number=number, install_failure=1.0)
        case 1:
            return Version(number=number, install_failure=0.4)
        case 2 | 3:
            return Version(number=number, error_share=0.3, bad_boxes=bad_boxes)
        case 4:
            return Version(number=number, slowness=3.0)
        case 5:
            return Version(number=number, deadly=0.5)
        case 6:
            return Version(number=number, agreement=0.5)
        case _:
            return Version(number=number)


def _draw_faults(rng: random.Random, rough: float) -> Faults:
    return Faults(
        loss=rng.choice([0.0, 0.4]) * rough,
        duplicates=rng.choice([0.0, 0.2]) * rough,
        delay_seconds_max=rng.choice([0.1, 3.0]),
        restarts=round(rough * rng.randint(0, 6)),
        absences=round(rough * rng.randint(0, 4)),
        flaps=round(rough * rng.randint(0, 2)),
        partitions=round(rough * rng.randint(0, 2)),
        restored_disks=round(rough * rng.randint(0, 2)),
        crash_share=rng.choice([0.0, 0.3]) * rough,
        stops=round(rough * rng.randint(0, 2)),
    )
