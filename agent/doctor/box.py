"""Checks of the box itself: processor, memory, accelerators, shared memory, open files."""

import os
import resource
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from agent import limits
from agent.doctor.finding import Finding, fail, megabytes, warn, well

_INTEL = "0x8086"
_LIBRARY_FOLDERS = ("usr/lib", "usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/local/lib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Where to look, and as whom."""

    root: Path = Path("/")
    user: int = field(default_factory=os.geteuid)
    groups: frozenset[int] = field(default_factory=lambda: frozenset({os.getegid(), *os.getgroups()}))

    def may_use(self, path: Path) -> bool:
        """Whether the user may read and write the file."""
        found = path.stat()
        if self.user == 0:
            return True
        if found.st_uid == self.user:
            wanted = stat.S_IRUSR | stat.S_IWUSR
        elif found.st_gid in self.groups:
            wanted = stat.S_IRGRP | stat.S_IWGRP
        else:
            wanted = stat.S_IROTH | stat.S_IWOTH
        return found.st_mode & wanted == wanted

    def has_library(self, name: str) -> bool:
        return any(any((self.root / folder).glob(f"{name}*")) for folder in _LIBRARY_FOLDERS)


def check_box(box: Box) -> Iterator[Finding]:
    """Every check of this module."""
    yield check_processor(box)
    yield check_memory(total_bytes=psutil.virtual_memory().total, available_bytes=psutil.virtual_memory().available)
    yield from check_gpu(box)
    yield from check_npu(box)
    yield check_shared_memory(box)
    yield check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def check_processor(box: Box) -> Finding:
    try:
        text = (box.root / "proc/cpuinfo").read_text()
    except OSError as error:
        return warn("processor", f"/proc/cpuinfo cannot be read: {error.strerror}", "mount /proc")
    flags = {flag for line in text.splitlines() if line.startswith("flags") for flag in line.partition(":")[2].split()}
    if not flags:
        return well("processor", "no x86; its instruction set is not looked at")
    names = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx_vnni": "AVX-VNNI", "amx_tile": "AMX"}
    found = ", ".join(name for flag, name in names.items() if flag in flags)
    if "avx2" not in flags:
        return warn(
            "processor",
            "no AVX2: models run several times slower than they could",
            "pass the processor through where this is a virtual machine (CPU type host), else use a newer box",
        )
    return well("processor", found)


def check_memory(*, total_bytes: int, available_bytes: int) -> Finding:
    text = f"{megabytes(available_bytes)} of {megabytes(total_bytes)} are available"
    if available_bytes < limits.DOCTOR_MEMORY_BYTES_MIN:
        return fail("memory", text, "end what else uses memory, or add some: compiling a model needs that much")
    if available_bytes < limits.CHILD_MEMORY_BYTES_MIN:
        return warn("memory", text, "end what else uses memory: large models may not compile")
    return well("memory", text)


def check_gpu(box: Box) -> Iterator[Finding]:
    """An Intel GPU needs its driver, a render node that we may open, the OpenCL loader and Intel's OpenCL runtime."""
    nodes = [node for node in sorted((box.root / "dev/dri").glob("renderD*")) if _is_intel(box, node)]
    if not nodes:
        in_use = [name for name in ("i915", "xe") if (box.root / "sys/module" / name).is_dir()]
        if in_use:
            yield warn(
                "gpu",
                f"driver {in_use[0]} is loaded and there is no render node in /dev/dri",
                "give the container its device (docker run --device /dev/dri), or update the kernel for this GPU",
            )
        else:
            yield well("gpu", "none of Intel's is here")
        return
    closed = [node for node in nodes if not box.may_use(node)]
    for node in closed:
        yield fail(
            "gpu permission",
            f"this user may not use /dev/dri/{node.name}",
            "add the user to the group of the file: usermod --append --groups render USER, then log in anew",
        )
    if not closed:
        yield well("gpu permission", ", ".join(f"/dev/dri/{node.name}" for node in nodes))
    if not box.has_library("libOpenCL.so"):
        yield fail(
            "opencl loader",
            "there is a GPU and no libOpenCL.so.1: OpenVINO does not see the GPU",
            "install it: apt-get install ocl-icd-libopencl1 intel-opencl-icd",
        )
        return
    yield well("opencl loader", "libOpenCL is installed")
    if not any((box.root / "etc/OpenCL/vendors").glob("*.icd")):
        yield fail(
            "opencl runtime",
            "the OpenCL loader knows of no runtime (/etc/OpenCL/vendors is empty): OpenVINO does not see the GPU",
            "install Intel's: apt-get install intel-opencl-icd",
        )
    else:
        yield well("opencl runtime", "a runtime is registered in /etc/OpenCL/vendors")


def check_npu(box: Box) -> Iterator[Finding]:
    """An NPU needs its kernel driver, a node that we may open, and the Level Zero loader with Intel's driver."""
    nodes = sorted((box.root / "dev/accel").glob("accel*"))
    if not nodes:
        if (box.root / "sys/module/intel_vpu").is_dir():
            yield warn(
                "npu",
                "driver intel_vpu is loaded and there is no node in /dev/accel",
                "give the container its device (docker run --device /dev/accel), or look for its firmware in dmesg",
            )
        else:
            yield well("npu", "none is here")
        return
    for node in nodes:
        if box.may_use(node):
            yield well("npu permission", f"/dev/accel/{node.name}")
        else:
            yield fail(
                "npu permission",
                f"this user may not use /dev/accel/{node.name}",
                "add the user to the group of the file: usermod --append --groups render USER, then log in anew",
            )
    missing = [name for name in ("libze_loader.so", "libze_intel_npu.so") if not box.has_library(name)]
    if missing:
        yield fail(
            "npu driver",
            f"there is an NPU and no {' and no '.join(missing)}: OpenVINO does not see it",
            "install Intel's NPU driver (packages level-zero, intel-level-zero-npu, intel-driver-compiler-npu)",
        )
    else:
        yield well("npu driver", "the Level Zero loader and the NPU's driver are installed")


def check_shared_memory(box: Box) -> Finding:
    folder = box.root / "dev/shm"
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return warn("shared memory", f"{folder}: {error.strerror}", "mount a tmpfs there, or leave --shared-memory off")
    size_bytes, free_bytes = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    text = f"{megabytes(free_bytes)} of {megabytes(size_bytes)} are free in /dev/shm"
    if free_bytes < limits.DOCTOR_SHARED_MEMORY_BYTES_MIN:
        remedy = "make it larger (docker run --shm-size 512m, or mount -o remount,size=512m /dev/shm)"
        return warn("shared memory", text, f"{remedy} for applications that hand over images in it")
    return well("shared memory", text)


def check_open_files(soft: int) -> Finding:
    text = "no bound" if soft == resource.RLIM_INFINITY else f"{soft} files"
    if soft != resource.RLIM_INFINITY and soft < limits.DOCTOR_OPEN_FILES_MIN:
        return warn(
            "open files",
            f"{text} may be open at once",
            "raise it (ulimit -n 4096, or LimitNOFILE=4096 in the service): each application's connection is one",
        )
    return well("open files", text)


def _is_intel(box: Box, node: Path) -> bool:
    vendor = box.root / "sys/class/drm" / node.name / "device/vendor"
    # A container may show the node without /sys: then it is looked at.
    return not vendor.exists() or vendor.read_text().strip() == _INTEL
