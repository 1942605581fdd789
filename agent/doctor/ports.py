"""Checks of the addresses at which applications reach the agent."""

import socket
from collections.abc import Iterator, Mapping
from typing import Any

from agent import limits
from agent.doctor.finding import Finding, fail, warn, well
from agent.rpc.inference_address import split_address


def check_ports(wanted: Mapping[str, str], live: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Served where an agent runs, free where none does. `wanted` is by listener, as `run` would be told."""
    for name, address in wanted.items():
        if live is not None:
            yield check_served(name, str(live["listening"][name]))
        else:
            yield check_free(name, address)


def check_served(name: str, address: str) -> Finding:
    check = f"port {name}"
    host, port = split_address(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        socket.create_connection((host, port), timeout=limits.DOCTOR_REACH_SECONDS_MAX).close()
    except OSError as error:
        return fail(
            check,
            f"{address} takes no connection: {error.strerror or error}",
            "start the agent anew; see that no local firewall closes the loopback",
        )
    return well(check, f"applications reach the agent at {address}")


def check_free(name: str, address: str) -> Finding:
    check = f"port {name}"
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return well(check, f"{address} is free")
    except OSError as error:
        return warn(
            check,
            f"{address} cannot be bound: {error.strerror or error}",
            f"end what listens there (ss --listening --processes), or run the agent with another --{name}",
        )
