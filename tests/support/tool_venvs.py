"""Programs of other people, each in a virtual environment of its own, so that none decides what ours are built with.

They are fetched once into `.cache/venvs` from the package index that pip's settings name. Without network
and cache the test that asks skips.
"""

import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "venvs"
FETCH_SECONDS_MAX = 500
_DONE = "requirements.txt"

TRITON = ("nvidia-pytriton==0.7.0",)
"""Real Triton 2.51 with its Python backend."""
KSERVE = ("kserve==0.21.0",)
MODEL_API = ("openvino-model-api==0.4.7", "tritonclient[grpc,http]==2.73.0")
PERF_ANALYZER = ("tritonclient==2.50.0", "nvidia-cuda-runtime-cu12==12.9.79")
"""The last wheel that carries the binary, and a library that it is linked against."""
PERF_ANALYZER_DEB = "libb64-0d"


def python_of(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment that holds the requirements; skips where it cannot be made."""
    folder = CACHE / name
    wanted = "\n".join(requirements)
    done = folder / _DONE
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        _fetch([sys.executable, "-m", "venv", str(folder)])
        _fetch([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *requirements])
        done.write_text(wanted)
    return folder / "bin" / "python"


def perf_analyzer() -> tuple[Path, str]:
    """The program, and the LD_LIBRARY_PATH that it needs; skips where it cannot be had."""
    if platform.machine() != "x86_64":
        pytest.skip("perf_analyzer comes for x86_64")
    folder = CACHE / "perf-analyzer"
    done = folder / _DONE
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        python = shutil.which("python3") or sys.executable
        _fetch([python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *PERF_ANALYZER])
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        _unpack_library(folder)
        done.touch()
    program = next(folder.glob("**/bin/perf_analyzer"))
    program.chmod(0o755)
    folders = {path.parent for path in folder.glob("**/*.so*")}
    return program, ":".join(map(str, sorted(folders)))


def _unpack_library(folder: Path) -> None:
    """Debian's package, unpacked rather than installed, which no test may do."""
    if any(Path("/usr/lib").glob("**/libb64.so.0d*")):
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip(f"perf_analyzer needs {PERF_ANALYZER_DEB}")
    _fetch(["apt-get", "download", "--quiet", PERF_ANALYZER_DEB], folder)
    (package,) = folder.glob(f"{PERF_ANALYZER_DEB}_*.deb")
    _fetch(["dpkg-deb", "--extract", str(package), str(folder / "debian")])


def _fetch(command: Sequence[str], folder: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{' '.join(command)} takes more than {FETCH_SECONDS_MAX} s")
    if done.returncode != 0:
        pytest.skip(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")
