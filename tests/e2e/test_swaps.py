"""Sixty swaps under load: nothing fails, nothing is answered twice, and memory stays what it was."""

from collections import Counter

import psutil
import pytest

from tests.support import models
from tests.support.line import Line, Load, wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.e2e, pytest.mark.openvino, pytest.mark.slow, pytest.mark.timeout(1800)]

SWAPS = 60
WARM_UP_SWAPS = 10
"""Until allocators, caches and threads have what they keep."""
RSS_GROWTH_MAX = 1.05
BIASES = {1: 0.5, 2: 2.5}


def test_sixty_swaps_fail_nothing_answer_once_and_free_what_they_replace(line: Line) -> None:
    agent = line.start_agent("st-1")
    for number, bias in BIASES.items():
        line.publish("m", models.classifier_ir(line.folder / f"v{number}", bias=bias))
    line.deploy("d", "m", 1)
    line.wait_serving("st-1", "m", 1)
    assert agent.process is not None
    process = psutil.Process(agent.process.pid)
    resident: list[int] = []
    with Load(agent.grpc_address, "m", "swap", threads=2) as load:
        for number in range(SWAPS):
            swap_to(line, 2 - number % 2)
            load.wait_answers(10)
            resident.append(process.memory_info().rss)
    assert not load.failures
    assert {version for version, _ in load.answered.values()} == {"1", "2"}
    for version, score in load.answered.values():
        assert score == pytest.approx(models.positive_score(BIASES[int(version)]), abs=0.01), "content and name agree"
    wait_until(lambda: len(line.results("m")) >= len(load.answered), what="every result to come back")
    results = line.results("m")
    assert max(Counter(result.part_id for result in results).values()) == 1
    answered = {part: f"models/m/versions/{version}" for part, (version, _) in load.answered.items()}
    assert {result.part_id: result.model_version for result in results} == answered
    # Each swap has both versions in memory for a moment: the least of a few swaps is what is kept.
    warm, last = min(resident[WARM_UP_SWAPS : WARM_UP_SWAPS + 10]), min(resident[-10:])
    assert last <= warm * RSS_GROWTH_MAX, f"{warm >> 20} MiB after the warm-up, {last >> 20} MiB at the end"


def swap_to(line: Line, version: int) -> None:
    with line.client() as client:
        client.rollouts.start("d", model="m", version=version, waves=["100%"])
    line.wait_serving("st-1", "m", version)
    wait_until(lambda: not line.json("deployments", "show", "d")["active_rollout"], what="the rollout to succeed")
