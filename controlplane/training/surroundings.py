"""What a trainer finds around itself: an environment of our making, and the files without which nothing runs."""

import os
import sys
from pathlib import Path

import controlplane
from controlplane.domain.trainer import Trainer

_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/sys", "/dev/urandom", "/dev/random"),
    # Not all of /proc: it shows the environments of our other processes, with the credentials of the object store. The
    # trainer becomes the process that is "self" when it is confined.
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys", "/proc/version", "/proc/loadavg"),
    *("/proc/filesystems", "/proc/uptime", "/proc/cgroups"),
    # Not all of /etc either: the controller's own settings may lie there.
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/OpenCL", "/etc/fonts"),
    *("/etc/localtime", "/etc/timezone", "/etc/ssl", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/hosts"),
    *("/etc/resolv.conf", "/etc/mime.types", "/etc/os-release", "/etc/pki"),
)


def environment_of(trainer: Trainer, folder: Path) -> dict[str, str]:
    """The whole environment: nothing is inherited, so that no credential of the controller's is."""
    scratch = str(folder / "scratch")
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "LANG": "C.UTF-8",
        "HOME": scratch,
        "TMPDIR": scratch,
        "PYTHONPATH": str(folder / "lib"),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **dict(trainer.environment),
    }


def system_paths() -> list[Path]:
    """What any program reads."""
    return [Path(path) for path in _SYSTEM]


def own_paths(trainer: Trainer) -> list[Path]:
    """Interpreter, packages, the trainer's own files, and what its configuration names."""
    prefixes = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent, _package()]
    named = [Path(part) for part in trainer.command if part.startswith("/") and Path(part).is_file()]
    return [*prefixes, *named, *map(Path, trainer.read_paths)]


def link_library(folder: Path) -> None:
    """Make our own package importable. Where it is installed in place, what lies around it may be anything, a
    controller's folder too, and is not readable to a trainer: the link leads to the package alone."""
    (folder / "controlplane").symlink_to(_package(), target_is_directory=True)


def _package() -> Path:
    return Path(controlplane.__file__).resolve().parent
