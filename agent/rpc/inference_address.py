"""Addresses of the local inference servers: plaintext, so loopback unless the operator says otherwise."""

import ipaddress

from agent.domain.errors import RequestError


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "HOST:PORT", an IPv6 host in brackets. Raises RequestError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise RequestError(f"{address!r} is no address", field="address", remedy="write HOST:PORT")
    return host, int(port)


def check_loopback(address: str) -> None:
    """Raises RequestError unless the address can be reached from this box alone."""
    host, _ = split_address(address)
    if host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass  # a name: what it resolves to may change, so it counts as remote
    raise RequestError(
        f"{host} can be reached from other boxes, and this port has neither encryption nor identity",
        field="address",
        remedy="use 127.0.0.1, or add --allow-remote where the network is trusted",
    )
