"""A slice of the experiments on exposure; `make simulate` runs them whole."""

import pytest

from tests.simulation.exposure import expose_bad, expose_good, is_stopped_in_canary, is_turned_back
from tests.simulation.run import quiet

BAD_SEEDS, GOOD_SEEDS = 10, 10


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet()


def test_a_version_that_fails_on_one_device_class_is_stopped_in_the_canary_wave() -> None:
    exposed = [expose_bad(seed) for seed in range(BAD_SEEDS)]
    assert [each for each in exposed if not is_stopped_in_canary(each)] == []


def test_a_good_version_is_never_turned_back() -> None:
    exposed = [expose_good(seed) for seed in range(GOOD_SEEDS)]
    assert [each for each in exposed if is_turned_back(each)] == []
    assert any(each.waves_admitted == 3 for each in exposed), "the experiment lets it through"
