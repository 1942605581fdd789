"""Device classes say what a box computes with, and nothing else."""

import pytest

from controlplane.domain.device_class import UNKNOWN, device_class
from controlplane.domain.inventory import AgentRecord, Device
from tests.support.factories import make_agent, make_device, make_host, make_observation

CPU = make_device(device="CPU", capabilities=("INT8", "FP32", "BF16"))
GPU = make_device(device="GPU.0", capabilities=("FP32", "FP16"))


def make_record(*devices: Device, architecture: str = "x86_64") -> AgentRecord:
    host = make_host(architecture=architecture)
    return AgentRecord(agent=make_agent(), observation=make_observation(host=host, devices=devices))


@pytest.mark.parametrize(
    ("record", "written"),
    [
        (make_record(CPU), "x86_64/CPU(BF16,FP32,INT8)"),
        (make_record(CPU, GPU), "x86_64/CPU(BF16,FP32,INT8)+GPU(FP16,FP32)"),
        (make_record(GPU, CPU), "x86_64/CPU(BF16,FP32,INT8)+GPU(FP16,FP32)"),
        (make_record(CPU, architecture="aarch64"), "aarch64/CPU(BF16,FP32,INT8)"),
        (make_record(make_device(device="NPU", capabilities=()), architecture=""), "unknown/NPU()"),
        (make_record(), UNKNOWN),
        (AgentRecord(agent=make_agent()), UNKNOWN),
    ],
)
def test_a_class_is_written_so_that_an_operator_can_read_it(record: AgentRecord, written: str) -> None:
    assert device_class(record) == written


def test_two_devices_of_one_kind_are_one_and_names_do_not_matter() -> None:
    two = make_device(device="GPU.1", capabilities=("FP16", "FP32"), full_name="another", memory_bytes=1 << 30)
    assert device_class(make_record(CPU, GPU, two)) == device_class(make_record(GPU, CPU))
