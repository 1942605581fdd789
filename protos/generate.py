"""Generates `protos/gen/lineside/v1` from `protos/lineside/v1`. Run it as `make protos`.

With `--check DIR` it generates into DIR instead, so that a test can compare.
"""

import sys
import sysconfig
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent


def generate(target: Path) -> None:
    """Write the modules and stubs of every proto into `target`; raise SystemExit on an error of protoc."""
    target.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("lineside/v1/*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    scripts = Path(sysconfig.get_path("scripts"))
    arguments = [
        "protoc",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"-I{ROOT}",
        f"-I{well_known}",
        f"--python_out={target}",
        f"--mypy_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_grpc_out={target}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    for package in ("lineside", "lineside/v1"):
        (target / package / "__init__.py").write_text("")
        (target / package / "py.typed").touch()


if __name__ == "__main__":
    generate(Path(sys.argv[2]) if sys.argv[1:2] == ["--check"] else ROOT / "gen")
