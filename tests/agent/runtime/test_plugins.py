"""Plugins that the environment names."""

import pytest

from agent.domain.errors import StateError
from agent.runtime.plugins import parse_plugins


def test_names_and_libraries() -> None:
    assert parse_plugins("SIMCPU=lib.so, NEWCPU=/opt/x/lib.so,") == {"SIMCPU": "lib.so", "NEWCPU": "/opt/x/lib.so"}
    assert parse_plugins("") == {}


@pytest.mark.parametrize("text", ["SIMCPU", "=lib.so", "SIM CPU=lib.so", "A=", "A=x,A=y"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(StateError) as caught:
        parse_plugins(text)
    assert caught.value.field == "LINESIDE_OPENVINO_PLUGINS"
    assert caught.value.remedy
