"""What a Sync stream says of an answer."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from lineside.v1 import endpoints_pb2, fleet_service_pb2

from controlplane.app.fleet import SyncAnswer
from controlplane.rpc import fleet as rpc
from tests.support.factories import NOW, make_certificate


class Answers:
    """A Fleet that has these to say."""

    def __init__(self, *answers: SyncAnswer) -> None:
        self._answers = answers

    async def sync(self, *_: object) -> AsyncGenerator[SyncAnswer, None]:
        for answer in self._answers:
            yield answer


async def told(*answers: SyncAnswer) -> list[fleet_service_pb2.SyncResponse]:
    fleet: Any = Answers(*answers)
    unused: Any = None
    endpoints = endpoints_pb2.Endpoints(api="here:1")
    servicer = rpc.FleetServicer(fleet=fleet, enrollment=unused, endpoints=endpoints, sync_interval_seconds=2.5)
    return [response async for response in servicer.Sync(unused, unused)]


@pytest.fixture(autouse=True)
def _certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "current_certificate", make_certificate)


async def test_the_first_answer_alone_says_where_the_listeners_are() -> None:
    answer = SyncAnswer(desired=None, generation=7, controller_time=NOW)
    first, second = await told(answer, answer)
    assert (first.endpoints.api, second.HasField("endpoints")) == ("here:1", False)
    assert first.sync_interval.ToTimedelta().total_seconds() == 2.5
    assert (first.generation, second.generation) == (7, 7)
    assert first.controller_time.ToDatetime(NOW.tzinfo) == NOW


async def test_a_jitter_is_asked_for_where_there_is_one() -> None:
    alone = SyncAnswer(desired=None, generation=7, controller_time=NOW)
    together = SyncAnswer(desired=None, generation=8, controller_time=NOW, report_jitter_seconds=1.25)
    first, second = await told(alone, together)
    assert not first.HasField("report_jitter")
    assert second.report_jitter.ToTimedelta().total_seconds() == 1.25
