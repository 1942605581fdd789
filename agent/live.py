"""Asks the agent that runs on a folder, over the socket that it keeps there."""

import http.client
import json
import socket
from typing import Any

from agent import limits
from agent.rpc.vitals_rest import METRICS_PATH, STATUS_PATH, short_path
from agent.storage.folder import AgentFolder


def read_live_status(folder: AgentFolder) -> dict[str, Any] | None:
    """What the running agent says of itself; None where none runs, or it does not answer in time."""
    content = _get(folder, STATUS_PATH)
    found = None if content is None else json.loads(content)
    return found if isinstance(found, dict) else None


def read_live_metrics(folder: AgentFolder) -> str | None:
    """The running agent's metrics in Prometheus' text format; None as above."""
    content = _get(folder, METRICS_PATH)
    return None if content is None else content.decode()


def _get(folder: AgentFolder, path: str) -> bytes | None:
    connection = http.client.HTTPConnection("localhost", timeout=limits.LIVE_STATUS_SECONDS_MAX)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(limits.LIVE_STATUS_SECONDS_MAX)
        with short_path(folder.status_socket) as name:
            connection.sock.connect(name)
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return content if response.status == http.client.OK else None
