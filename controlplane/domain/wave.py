"""Waves: who is moved when. Sizes are cumulative; the last wave always takes everybody who is left."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import AgentId
from controlplane.domain.rollout import Wave, WaveSize

EVERYBODY = WaveSize(percent=100)

_SIZE = re.compile(r"(?P<number>[1-9][0-9]{0,8})(?P<percent>%?)")


def parse_wave_sizes(
    sizes: str | Iterable[str], *, field: str = "rollout.strategy.waves", waves_max: float = inf
) -> tuple[WaveSize, ...]:
    """Return the sizes of "1,50%,100%" or of such items.

    Raises FieldInvalidError unless counts come before percentages, each kind grows, and the last is "100%".
    """
    items = [item.strip() for item in (sizes.split(",") if isinstance(sizes, str) else sizes)]
    if len(items) > waves_max:
        raise FieldInvalidError(f"{len(items)} waves are too many", field=field, remedy=f"use at most {waves_max:g}")
    parsed = tuple(_parse_size(item, field) for item in items)
    for smaller, larger in pairwise(parsed):
        if not _grows(smaller, larger):
            raise FieldInvalidError(
                f"{larger} does not grow on {smaller}",
                field=field,
                remedy="write cumulative sizes that grow, counts before percentages, for example 1,50%,100%",
            )
    if not parsed or parsed[-1] != EVERYBODY:
        raise FieldInvalidError("the last wave is not 100%", field=field, remedy="end the waves with 100%")
    return parsed


def _parse_size(text: str, field: str) -> WaveSize:
    found = _SIZE.fullmatch(text)
    number = int(found["number"]) if found else 0
    if found is None or (found["percent"] and number > EVERYBODY.of(100)):
        raise FieldInvalidError(
            f"{text!r} is not the size of a wave", field=field, remedy="write a count such as 1, or 1% to 100%"
        )
    return WaveSize(percent=number) if found["percent"] else WaveSize(count=number)


def _grows(smaller: WaveSize, larger: WaveSize) -> bool:
    if smaller.percent is not None:
        return larger.percent is not None and smaller.percent < larger.percent
    return larger.percent is not None or (smaller.count or 0) < (larger.count or 0)


def plan_waves(
    sizes: Sequence[WaveSize],
    agents: Iterable[AgentId],
    *,
    seed: str,
    device_classes: Mapping[AgentId, str] | None = None,
) -> tuple[Wave, ...]:
    """Return the waves, all PENDING: each agent in exactly one, by a stable hash of its id with `seed`.

    A wave that would add nobody is left out (with two agents, "1,50%,100%" makes the waves 1 and 100%),
    so every wave has targets, and the last wave is written 100%. No agents make no waves.

    With `device_classes` (of the agents whose class is known) and more than one wave, the first is enlarged: of each
    class that it lacks it takes the first agent in the order. Those in later waves move up for nobody else.
    """
    order = sorted(agents, key=lambda agent_id: (hashlib.sha256(f"{seed}/{agent_id}".encode()).digest(), agent_id))
    if device_classes and len(sizes) > 1:
        order, canary = _with_canary(order, sizes[0].of(len(order)), device_classes)
    else:
        canary = 0
    waves: list[Wave] = []
    taken = 0
    for size in sizes:
        upto = max(size.of(len(order)), canary)
        if upto > taken:
            waves.append(Wave(index=len(waves), size=size, agents=tuple(sorted(order[taken:upto]))))
            taken = upto
    if waves:
        waves[-1] = replace(waves[-1], size=EVERYBODY)
    return tuple(waves)


def _with_canary(
    order: Sequence[AgentId], size: int, device_classes: Mapping[AgentId, str]
) -> tuple[list[AgentId], int]:
    """The order with the first agent of each class that is not among the first `size` drawn up behind them, and how
    many the first wave then has."""
    seen = {device_classes[agent] for agent in order[:size] if agent in device_classes}
    drawn: list[AgentId] = []
    for agent in order[size:]:
        if agent in device_classes and device_classes[agent] not in seen:
            seen.add(device_classes[agent])
            drawn.append(agent)
    up = frozenset(drawn)
    rest = [agent for agent in order[size:] if agent not in up]
    return [*order[:size], *drawn, *rest], size + len(drawn)


def enlist(waves: tuple[Wave, ...], agents: Iterable[AgentId]) -> tuple[Wave, ...]:
    """Return the waves with the agents that are in none appended to the last; nobody else moves."""
    known = {agent_id for wave in waves for agent_id in wave.agents}
    late = set(agents) - known
    if not late or not waves:
        return waves
    last = waves[-1]
    return (*waves[:-1], replace(last, agents=tuple(sorted({*last.agents, *late}))))
