"""Waiting until nobody waits for an answer."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.app.traffic import Traffic

WAIT_SECONDS = 10.0


def test_whoever_waits_goes_on_when_the_last_request_ends() -> None:
    traffic = Traffic()
    with ThreadPoolExecutor(1) as pool:
        with traffic.request():
            with traffic.request():
                waited = pool.submit(traffic.wait_quiet, 2 * WAIT_SECONDS)
            with pytest.raises(TimeoutError):
                waited.result(0.2)
            assert (traffic.quiet, traffic.requests) == (False, 1)
        assert waited.result(WAIT_SECONDS)
    assert traffic.quiet


def test_a_wait_is_bounded() -> None:
    traffic = Traffic()
    with traffic.request():
        assert not traffic.wait_quiet(0.01)
    assert traffic.wait_quiet(0.0)
