"""Turns and places: fair among applications, bounded, and nobody waits past a deadline."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.app.turns import Places, Turns
from agent.domain.errors import Reason, RequestError


class Queue:
    """Requests that line up one after another for a single turn, and the order in which they got it."""

    def __init__(self) -> None:
        self.turns = Turns(1)
        self.order: list[str] = []
        self.pool = ThreadPoolExecutor(64)
        self.results: list[Future[bool]] = []
        self.lined_up = 0

    def line_up(self, application: str) -> None:
        """Returns when it waits."""
        asked = threading.Event()

        def wait_seconds() -> float:
            asked.set()
            return 30.0

        def take() -> bool:
            taken = self.turns.take(application, wait_seconds)
            self.order.append(application)
            self.turns.give()
            return taken

        self.results.append(self.pool.submit(take))
        assert asked.wait(10)

    def run(self) -> list[str]:
        """Let the turn go round; the order."""
        self.turns.give()
        assert all(result.result(10) for result in self.results)
        self.pool.shutdown()
        return self.order


@given(arrivals=st.lists(st.sampled_from("abc"), min_size=1, max_size=20))
def test_applications_take_turns_and_each_keeps_its_order(arrivals: list[str]) -> None:
    queue = Queue()
    assert queue.turns.take("first", lambda: 0.0)
    for application in arrivals:
        queue.line_up(application)
    order = queue.run()
    assert sorted(order) == sorted(arrivals)
    left = {application: arrivals.count(application) for application in arrivals}
    since = dict.fromkeys(left, 0)
    for application in order:
        for other in left:
            since[other] += 1
        assert since[application] <= len(set(arrivals)), "nobody is served twice before all that wait were served once"
        since[application] = 0
        left[application] -= 1
        if not left[application]:
            del left[application], since[application]
    assert queue.turns.waiting == 0


def test_a_flood_does_not_hold_up_another_application() -> None:
    queue = Queue()
    assert queue.turns.take("flood", lambda: 0.0)
    for _ in range(20):
        queue.line_up("flood")
    queue.line_up("quiet")
    assert queue.run().index("quiet") <= 1


def test_who_waits_in_vain_leaves_no_trace() -> None:
    turns = Turns(1)
    assert turns.take("a", lambda: 0.0)
    assert not turns.take("b", lambda: 0.01)
    assert not turns.take("b", lambda: -1.0)
    assert turns.waiting == 0
    turns.give()
    assert turns.take("b", lambda: 0.0)


def test_turns_are_neither_lost_nor_doubled_when_many_give_up() -> None:
    turns, running, most = Turns(2), [0], [0]
    lock = threading.Lock()

    def work(number: int) -> None:
        for _ in range(200):
            if turns.take(f"app{number % 3}", lambda: 0.0002):
                with lock:
                    running[0] += 1
                    most[0] = max(most[0], running[0])
                with lock:
                    running[0] -= 1
                turns.give()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, number) for number in range(8)]:
            done.result(30)
    assert most[0] <= 2
    assert turns.take("x", lambda: 0.0)
    assert turns.take("x", lambda: 0.0)
    assert not turns.take("x", lambda: 0.0)


def test_one_application_has_half_of_the_places_and_there_is_room_for_one_more() -> None:
    places = Places(8)
    for _ in range(4):
        places.enter("flood")
    with pytest.raises(RequestError) as caught:
        places.enter("flood")
    assert caught.value.reason is Reason.QUEUE_FULL
    assert caught.value.remedy
    places.enter("quiet")
    places.enter("quiet")
    places.enter("third")
    for application, count in {"flood": 4, "quiet": 2, "third": 1}.items():
        for _ in range(count):
            places.leave(application)
    for _ in range(4):
        places.enter("later")
