"""What compiled code depends on besides OpenVINO, told without asking any driver: that may end the process."""

import hashlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import openvino as ov

_CPU_FACTS = ("model name", "flags", "Features", "CPU part")
_MODULES = ("i915", "xe", "intel_vpu")
_LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/local/lib")
_LIBRARIES = ("intel-opencl/*.so*", "libze_intel_*.so*", "libigc.so*", "libigdfcl.so*", "libnpu_driver_compiler.so*")


def platform_stamp(plugins: Mapping[str, str]) -> str:
    """Short text that changes with the processor's instruction set, the drivers of accelerators or a plugin."""
    facts = [platform.machine(), *_cpu_facts(), *_module_versions(), *(_stat(path) for path in _libraries(plugins))]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _cpu_facts() -> Iterator[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return
    for fact in _CPU_FACTS:
        # Cores of one box may differ, and their order does not matter.
        yield from sorted({" ".join(sorted(line.split())) for line in lines if line.split("\t")[0] == fact})


def _module_versions() -> Iterator[str]:
    for module in _MODULES:
        for name in ("version", "srcversion"):
            path = Path("/sys/module") / module / name
            if path.is_file():
                yield f"{module} {path.read_text().strip()}"
    if any((Path("/sys/module") / module).is_dir() for module in _MODULES):
        yield platform.release()


def _libraries(plugins: Mapping[str, str]) -> Iterable[Path]:
    found = {path for folder in _LIBRARY_FOLDERS for pattern in _LIBRARIES for path in Path(folder).glob(pattern)}
    beside = Path(ov.__file__).parent / "libs"
    return sorted(found | {beside / library for library in plugins.values()})


def _stat(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"{path} missing"
    return f"{path} {status.st_size} {status.st_mtime_ns}"
