"""Swap points: no lot sees two versions, and a swap waits no longer than it may."""

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from agent.app.serving import Serving
from agent.app.tensors import InputTensor
from agent.app.traffic import Traffic
from tests.support.serving import FakeModel, MemoryOffers, MemoryResults, NoShadows, RealClock, desired_slot

IMAGE = InputTensor(name="x", datatype="FP32", shape=(1, 3), data=np.zeros((1, 3), np.float32).tobytes())


@pytest.fixture
def serving() -> Serving:
    results = MemoryResults()
    return Serving(
        clock=RealClock(), results=results, samples=MemoryOffers(results), shadows=NoShadows(), traffic=Traffic()
    )


def ask(serving: Serving, lot: str = "", application: str = "camera") -> int:
    return serving.infer("cells", None, [IMAGE], application=application, lot=lot).model.version


def test_a_staged_version_begins_with_the_next_lot_and_earlier_lots_stay_with_theirs(serving: Serving) -> None:
    old, new, swapped = FakeModel(), FakeModel(), threading.Event()
    serving.swap(desired_slot(1), old)
    assert ask(serving, "L1") == ask(serving, "L1", application="other") == 1
    assert serving.stage(desired_slot(2), new, wait_seconds=60, on_swap=swapped.set)
    assert (ask(serving, "L1"), ask(serving)) == (1, 1)
    assert not swapped.is_set()
    assert ask(serving, "L2") == 2
    assert swapped.is_set()
    assert ask(serving) == 2
    assert ask(serving, "L1") == 1, "a straggler of the lot before"
    assert ask(serving, "L1", application="other") == 1, "another camera is still in its lot"
    assert serving.model("cells", 1).version == 1
    serving.swap(desired_slot(2), new)
    assert (old.closed, new.closed) == (0, 0)
    serving.close()
    assert (old.closed, new.closed) == (1, 1)


def test_a_version_that_was_waited_for_long_enough_takes_every_lot(serving: Serving) -> None:
    old, new = FakeModel(), FakeModel()
    serving.swap(desired_slot(1), old)
    assert ask(serving, "L1") == 1
    assert serving.stage(desired_slot(2), new, wait_seconds=60, on_swap=lambda: None)
    serving.swap(desired_slot(2), new)
    assert ask(serving, "L1") == 2
    assert (old.closed, new.closed) == (1, 0)


def test_what_is_kept_for_its_lots_is_freed_when_the_wait_is_over(serving: Serving) -> None:
    old = FakeModel()
    serving.swap(desired_slot(1), old)
    ask(serving, "L1")
    serving.stage(desired_slot(2), FakeModel(), wait_seconds=0.0, on_swap=lambda: None)
    assert ask(serving, "L2") == 2
    assert old.closed == 1
    assert ask(serving, "L1") == 2


def test_a_staged_version_that_is_replaced_or_unloaded_is_freed(serving: Serving) -> None:
    first, second = FakeModel(), FakeModel()
    serving.swap(desired_slot(1), FakeModel())
    ask(serving, "L1")
    serving.stage(desired_slot(2), first, wait_seconds=60, on_swap=lambda: None)
    serving.swap(desired_slot(3), FakeModel())
    assert first.closed == 1
    ask(serving, "L1")
    serving.stage(desired_slot(4), second, wait_seconds=60, on_swap=lambda: None)
    serving.unload("cells")
    assert second.closed == 1


def test_without_lots_nothing_is_staged(serving: Serving) -> None:
    assert not serving.stage(desired_slot(1), FakeModel(), wait_seconds=60, on_swap=lambda: None)
    serving.swap(desired_slot(1), FakeModel())
    ask(serving)
    assert not serving.stage(desired_slot(2), FakeModel(), wait_seconds=60, on_swap=lambda: None)


def test_under_load_no_lot_sees_two_versions(serving: Serving) -> None:
    serving.swap(desired_slot(1), FakeModel())
    seen: dict[tuple[int, int], set[int]] = defaultdict(set)
    done, swapped = threading.Event(), threading.Semaphore(0)

    def camera(number: int) -> None:
        lot = 0
        with ThreadPoolExecutor(3) as pool:
            while not done.is_set():
                asked = [pool.submit(ask, serving, f"lot-{lot}", f"camera-{number}") for _ in range(6)]
                seen[number, lot].update(each.result(10) for each in asked)
                lot += 1

    with ThreadPoolExecutor(3) as cameras:
        running = [cameras.submit(camera, number) for number in range(3)]
        for version in range(2, 22):
            while not serving.stage(
                desired_slot(version), model := FakeModel(), wait_seconds=30, on_swap=swapped.release
            ):
                pass
            assert swapped.acquire(timeout=20)
            serving.swap(desired_slot(version), model)
        done.set()
        for each in running:
            each.result(20)
    assert {len(versions) for versions in seen.values()} == {1}
    assert len(set.union(*seen.values())) > 10


def test_a_device_that_is_replaced_under_a_lot_ends_no_wait_and_begins_no_lot(serving: Serving) -> None:
    lost, successor, new = FakeModel(), FakeModel(), FakeModel()
    serving.swap(desired_slot(1), lost)
    ask(serving, "L1")
    assert serving.stage(desired_slot(2), new, wait_seconds=60, on_swap=lambda: None)
    serving.swap(desired_slot(1), successor)
    assert (lost.closed, new.closed) == (1, 0)
    assert ask(serving, "L1") == 1, "its version goes on with it"
    assert ask(serving, "L2") == 2


def test_a_staged_version_can_be_withdrawn_until_a_lot_has_begun_with_it(serving: Serving) -> None:
    staged, other = FakeModel(), FakeModel()
    serving.swap(desired_slot(1), FakeModel())
    ask(serving, "L1")
    serving.stage(desired_slot(2), staged, wait_seconds=60, on_swap=lambda: None)
    assert not serving.withdraw("cells", other)
    assert serving.withdraw("cells", staged)
    assert staged.closed == 1
    assert ask(serving, "L2") == 1
    serving.stage(desired_slot(3), other, wait_seconds=60, on_swap=lambda: None)
    assert ask(serving, "L3") == 3
    assert not serving.withdraw("cells", other)
    assert other.closed == 0


def test_a_staged_version_that_another_takes_the_place_of_is_freed(serving: Serving) -> None:
    first, second = FakeModel(), FakeModel()
    serving.swap(desired_slot(1), FakeModel())
    ask(serving, "L1")
    serving.stage(desired_slot(2), first, wait_seconds=60, on_swap=lambda: None)
    serving.stage(desired_slot(3), second, wait_seconds=60, on_swap=lambda: None)
    assert (first.closed, second.closed) == (1, 0)
    assert ask(serving, "L2") == 3


def test_a_version_that_is_kept_for_its_lots_answers_who_names_it_no_shorter_than_them(serving: Serving) -> None:
    serving.swap(desired_slot(1), FakeModel())
    ask(serving, "L1")
    serving.stage(desired_slot(2), FakeModel(), wait_seconds=300, on_swap=lambda: None)
    assert ask(serving, "L2") == 2
    (kept,) = serving._draining
    assert kept.named_until == kept.keep_until
    assert serving.infer("cells", 1, [IMAGE]).model.version == 1
