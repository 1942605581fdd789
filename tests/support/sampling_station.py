"""A station whose agent keeps every picture that it is shown, behind an uplink of its own for bytes: what waits on its
disk, what of that has arrived, and kills in between.

with sampling_station(line, "st-1") as station:
    station.uplink.cut()
    station.show_and_hold(pictures)
    station.kill_and_start()
    station.uplink.mend()
    station.check_each_arrived_once()
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tritonclient.grpc as oip
from lineside.v1 import sample_pb2
from PIL import Image

from agent import limits
from agent.storage.folder import AgentFolder
from tests.support.agent_process import AgentProcess
from tests.support.line import Line, wait_until
from tests.support.tcp_proxy import Uplink, uplink

_HOST = "127.0.0.2"
"""Where the agent finds the controller: an address that its uplinks listen on."""
_AT_ONCE = limits.SAMPLE_QUEUE_MAX // 2
"""Pictures that find room in the queue of the thread that encodes them, however slow it is."""


@dataclass(slots=True)
class SamplingStation:
    line: Line
    agent: AgentProcess
    uplink: Uplink
    """Of bytes alone: samples wait while it is cut, and the agent is in reach all the same."""
    model: str
    owed: set[str] = field(default_factory=set)
    """Ids that were on the disk at a kill: each must arrive."""

    def show(self, pictures: Sequence[Path]) -> None:
        """Have each judged, its name as the id of its part."""
        client = oip.InferenceServerClient(self.agent.grpc_address)
        for picture in pictures:
            pixels = np.asarray(Image.open(picture))[None, :, :, None]
            tensor = oip.InferInput("image", list(pixels.shape), "UINT8")
            tensor.set_data_from_numpy(np.ascontiguousarray(pixels))
            client.infer(self.model, [tensor], parameters={"part_id": picture.stem}, client_timeout=20)
        client.close()

    def held(self) -> frozenset[str]:
        """Ids of the samples on the agent's disk."""
        folder = AgentFolder(self.agent.folder).samples
        return frozenset(path.name.partition(".")[0] for path in folder.glob("*.sample"))

    def show_and_hold(self, pictures: Sequence[Path]) -> None:
        """While nothing leaves the disk: show them no faster than they are written, and return when each is there."""
        for start in range(0, len(pictures), _AT_ONCE):
            some = pictures[start : start + _AT_ONCE]
            wanted = len(self.held()) + len(some)
            self.show(some)
            self._wait_held(wanted)

    def _wait_held(self, count: int) -> None:
        wait_until(lambda: len(self.held()) >= count, what=f"{count} samples on the disk")

    def arrived(self) -> list[sample_pb2.Sample]:
        with self.line.client() as client:
            return list(client.samples.list(model=self.model, agent=self.agent.name))

    def arrived_ids(self) -> list[str]:
        return [sample.name.removeprefix("samples/") for sample in self.arrived()]

    def kill_and_start(self) -> frozenset[str]:
        """kill -9 while samples wait, and start again; return what was on the disk in between."""
        self.agent.kill()
        held = self.held()
        assert held, "nothing was at stake"
        self.owed |= held
        self.agent.start()
        return held

    def check_each_arrived_once(self) -> None:
        """Return when the disk is empty; everything that was ever owed is there, and nothing twice."""
        wait_until(lambda: not self.held(), what="every sample to leave the disk")
        counted = Counter(self.arrived_ids())
        assert set(counted.values()) <= {1}
        assert self.owed <= counted.keys(), f"lost: {sorted(self.owed - counted.keys())}"


@contextmanager
def sampling_station(line: Line, name: str, *, model: str) -> Iterator[SamplingStation]:
    """Enrolled and started; it dies with the line."""
    ports = {key: int(address.rpartition(":")[2]) for key, address in line.controller.addresses.items()}
    agent = AgentProcess(folder=line.folder / name, name=name)
    with (
        uplink(_HOST, to="127.0.0.1", ports=[ports["api"], ports["fleet"]]),
        uplink(_HOST, to="127.0.0.1", ports=[ports["agent_bytes"]]) as of_bytes,
    ):
        token = line.controller.create_join_token(labels=("line=3",))
        enrolled = agent.enroll(controller=f"{_HOST}:{ports['api']}", token=token)
        assert enrolled.returncode == 0, enrolled.stderr
        line.agents[name] = agent
        agent.start()
        yield SamplingStation(line, agent, of_bytes, model)
        agent.kill()
