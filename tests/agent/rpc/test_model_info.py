"""What the publisher said of a model in Model API's words reaches the application over both transports."""

import asyncio
from dataclasses import replace

import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from agent.domain.artifact import ModelSignature
from tests.support.inference_servers import InferenceServers, running_servers
from tests.support.serving import SIGNATURE, FakeModel, desired_slot

INFO = {"labels": "ok defect", "mean_values": "1 2 3"}
SAID: ModelSignature = replace(
    SIGNATURE, rt_info={"version": "11", **{f"model_info/{key}": value for key, value in INFO.items()}}
)


def check(servers: InferenceServers) -> None:
    with triton_http.InferenceServerClient(servers.http_url) as client:
        assert client.get_model_metadata("cells")["rt_info"] == {"model_info": INFO}
        parameters = client.get_model_config("cells")["parameters"]
    with triton_grpc.InferenceServerClient(servers.grpc_url) as client:
        config = client.get_model_config("cells").config
        assert client.get_model_metadata("cells").name == "cells"
    for found in (
        {key: value["string_value"] for key, value in parameters.items()},
        {key: value.string_value for key, value in config.parameters.items()},
    ):
        assert {key: found[f"model_info/{key}"] for key in INFO} == INFO
        assert "version" not in found


async def test_model_info_is_served_as_metadata() -> None:
    async with running_servers() as servers:
        servers.serving.swap(desired_slot(3), FakeModel(signature=SAID))
        await asyncio.to_thread(check, servers)
