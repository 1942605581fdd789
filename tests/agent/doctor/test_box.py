"""Each fault of a box is found and its remedy named, on a file tree of the test's own."""

from pathlib import Path

import pytest

from agent.doctor import box as checks
from agent.doctor.box import Box
from agent.doctor.finding import Finding, Grade

USER = 1000


def put(root: Path, path: str, text: str = "", *, mode: int = 0o666) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def find(findings: list[Finding], check: str) -> Finding:
    return next(finding for finding in findings if finding.check == check)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(root=tmp_path, user=USER, groups=frozenset({USER}))


def gpu_box(box: Box, *, mode: int = 0o666, vendor: str = "0x8086") -> Box:
    put(box.root, "dev/dri/renderD128", mode=mode)
    put(box.root, "sys/class/drm/renderD128/device/vendor", f"{vendor}\n")
    return box


def test_a_gpu_without_the_opencl_loader_is_named(box: Box) -> None:
    finding = find(list(checks.check_gpu(gpu_box(box))), "opencl loader")
    assert finding.grade is Grade.FAIL
    assert "ocl-icd-libopencl1" in finding.remedy


def test_a_loader_without_a_runtime_is_named(box: Box) -> None:
    put(gpu_box(box).root, "usr/lib/x86_64-linux-gnu/libOpenCL.so.1")
    finding = find(list(checks.check_gpu(box)), "opencl runtime")
    assert finding.grade is Grade.FAIL
    assert "intel-opencl-icd" in finding.remedy


def test_a_render_node_that_the_user_may_not_use_is_named(box: Box) -> None:
    finding = find(list(checks.check_gpu(gpu_box(box, mode=0o660))), "gpu permission")
    assert finding.grade is Grade.FAIL
    assert "usermod --append --groups render" in finding.remedy


def test_the_group_of_the_render_node_suffices(box: Box) -> None:
    node = put(gpu_box(box).root, "dev/dri/renderD128", mode=0o660)
    member = Box(root=box.root, user=USER, groups=frozenset({node.stat().st_gid}))
    assert find(list(checks.check_gpu(member)), "gpu permission").grade is Grade.OK


def test_a_gpu_with_everything_is_well(box: Box) -> None:
    put(gpu_box(box).root, "usr/lib/x86_64-linux-gnu/libOpenCL.so.1")
    put(box.root, "etc/OpenCL/vendors/intel.icd")
    assert {finding.grade for finding in checks.check_gpu(box)} == {Grade.OK}


def test_a_gpu_of_another_maker_is_none_of_ours(box: Box) -> None:
    (finding,) = checks.check_gpu(gpu_box(box, vendor="0x10de"))
    assert finding.grade is Grade.OK


def test_a_driver_without_a_node_points_at_the_container(box: Box) -> None:
    (box.root / "sys/module/i915").mkdir(parents=True)
    (finding,) = checks.check_gpu(box)
    assert finding.grade is Grade.WARN
    assert "--device /dev/dri" in finding.remedy


def test_an_npu_without_its_driver_is_named(box: Box) -> None:
    put(box.root, "dev/accel/accel0")
    put(box.root, "usr/lib/libze_loader.so.1")
    finding = find(list(checks.check_npu(box)), "npu driver")
    assert finding.grade is Grade.FAIL
    assert "libze_intel_npu" in finding.message
    assert "libze_loader" not in finding.message


def test_an_npu_node_that_the_user_may_not_use_is_named(box: Box) -> None:
    put(box.root, "dev/accel/accel0", mode=0o600)
    assert find(list(checks.check_npu(box)), "npu permission").grade is Grade.FAIL


def test_a_processor_without_avx2_is_slow(box: Box) -> None:
    put(box.root, "proc/cpuinfo", "processor : 0\nflags\t\t: fpu sse4_2 avx\n")
    finding = checks.check_processor(box)
    assert finding.grade is Grade.WARN
    assert "AVX2" in finding.message


def test_the_instruction_set_is_told(box: Box) -> None:
    put(box.root, "proc/cpuinfo", "flags\t\t: avx2 avx512f amx_tile\n")
    assert checks.check_processor(box).message == "AVX2, AVX-512, AMX"


@pytest.mark.parametrize(("available", "grade"), [(100 << 20, "FAIL"), (1 << 30, "WARN"), (8 << 30, "OK")])
def test_memory(available: int, grade: str) -> None:
    assert checks.check_memory(total_bytes=16 << 30, available_bytes=available).grade == grade


@pytest.mark.parametrize(("soft", "grade"), [(256, "WARN"), (4096, "OK"), (-1, "OK")])
def test_open_files(soft: int, grade: str) -> None:
    assert checks.check_open_files(soft).grade == grade


def test_a_box_without_shared_memory_is_named(box: Box) -> None:
    assert checks.check_shared_memory(box).grade is Grade.WARN
