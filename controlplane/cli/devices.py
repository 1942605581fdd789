"""What an agent measured of each configuration, and why it runs the one that it runs."""

from collections.abc import Sequence

from lineside.v1 import agent_pb2, slot_pb2

from controlplane.cli.document import document_of
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import bytes_text
from controlplane.client.names import short

DEVICES: Sequence[Column[agent_pb2.Device]] = (
    Column(header="DEVICE", cell=lambda device: device.device, whole=True),
    Column(header="NAME", cell=lambda device: device.full_name),
    Column(header="TYPE", cell=lambda device: device.device_type or "-"),
    Column(header="CAPABILITIES", cell=lambda device: " ".join(device.capabilities)),
    Column(header="AUTO", cell=lambda device: "yes" if device.auto_choice else "-"),
)


def configuration_text(measured: slot_pb2.DeviceMeasurement) -> str:
    """Return the configuration as reasons name it: CPU f32 2 streams."""
    streams = f"{measured.streams} stream{'s' if measured.streams > 1 else ''}" if measured.streams else ""
    return " ".join(part for part in (measured.device, measured.inference_precision, streams) if part)


def show_devices(printer: Printer, agent: agent_pb2.Agent) -> None:
    """Show the devices of a box, and for each slot what was measured there and why one was chosen."""
    if printer.json:
        slots = [
            {
                "slot": slot.slot,
                "serving_version": slot.serving_version,
                "device": slot.device,
                "device_reason": slot.device_reason,
                "measurements": [document_of(measured) for measured in slot.measurements],
            }
            for slot in agent.slots
        ]
        printer.document({"devices": [document_of(device) for device in agent.devices], "slots": slots})
        return
    printer.table(DEVICES_DETAILED, [[column.cell(device) for column in DEVICES_DETAILED] for device in agent.devices])
    for slot in agent.slots:
        printer.pairs([("", ""), (f"slot {slot.slot}", short(slot.serving_version) or "serves nothing")])
        printer.pairs([("device chosen", slot.device_reason or "none yet")])
        if slot.failure_reason:
            printer.pairs([("failure", f"{slot.failure_reason}: {slot.failure_message}")])
        printer.section(f"measured for {slot.slot}", MEASUREMENTS, slot.measurements)


def _number(measured: slot_pb2.DeviceMeasurement, text: str) -> str:
    return text if measured.ok else "-"


def _parity(measured: slot_pb2.DeviceMeasurement) -> str:
    match measured.parity:
        case slot_pb2.DeviceMeasurement.PARITY_PASSED:
            return f"{measured.difference:.2g}"
        case slot_pb2.DeviceMeasurement.PARITY_FAILED:
            return f"FAILED {measured.difference:.2g}"
        case _:
            return "not checked" if measured.ok else "-"


def _seconds(measured: slot_pb2.DeviceMeasurement) -> str:
    return f"{measured.compile_duration.ToTimedelta().total_seconds():.2f}"


def _why(measured: slot_pb2.DeviceMeasurement) -> str:
    return ": ".join(part for part in (measured.remark, measured.error) if part)


DEVICES_DETAILED: Sequence[Column[agent_pb2.Device]] = (
    *DEVICES,
    Column(header="MEMORY", cell=lambda device: bytes_text(device.memory_bytes), number=True),
    Column(header="DRIVER", cell=lambda device: device.driver_version),
)

MEASUREMENTS: Sequence[Column[slot_pb2.DeviceMeasurement]] = (
    Column(header="CONFIGURATION", cell=configuration_text, whole=True),
    Column(header="CHOSEN", cell=lambda measured: "yes" if measured.chosen else "-"),
    Column(header="P50 MS", cell=lambda measured: _number(measured, f"{measured.latency_ms_p50:.2f}"), number=True),
    Column(header="P99 MS", cell=lambda measured: _number(measured, f"{measured.latency_ms_p99:.2f}"), number=True),
    Column(
        header="PER SECOND",
        cell=lambda measured: _number(measured, f"{measured.throughput_per_second:.1f}"),
        number=True,
    ),
    Column(header="PARITY", cell=_parity),
    Column(header="MEMORY", cell=lambda measured: _number(measured, bytes_text(measured.memory_bytes)), number=True),
    Column(header="COMPILE S", cell=lambda measured: _number(measured, _seconds(measured)), number=True),
    Column(header="WHY", cell=_why),
)
