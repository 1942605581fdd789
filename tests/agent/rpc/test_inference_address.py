"""Where the local servers may listen."""

import pytest

from agent.domain.errors import RequestError
from agent.rpc.inference_address import check_loopback, split_address


@pytest.mark.parametrize("address", ["127.0.0.1:9001", "127.8.8.8:0", "localhost:9000", "[::1]:9001"])
def test_loopback_is_fine(address: str) -> None:
    check_loopback(address)


@pytest.mark.parametrize("address", ["0.0.0.0:9001", "[::]:9001", "10.0.0.5:9001", "station-7:9001"])
def test_everything_else_needs_a_word_of_the_operator(address: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_loopback(address)
    assert "--allow-remote" in caught.value.remedy


@pytest.mark.parametrize("address", ["9001", "127.0.0.1", "127.0.0.1:", ":9001", "127.0.0.1:x", "127.0.0.1:65536"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(RequestError) as caught:
        split_address(address)
    assert caught.value.field == "address"
