import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "protos" / "gen" / "lineside" / "v1"


@pytest.mark.parametrize(
    ("distribution", "file", "pattern"),
    [
        ("grpcio", "agent_service_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '([\d.]+)'"),
        ("protobuf", "agent_service_pb2.py", r"Protobuf Python Version: ([\d.]+)"),
    ],
)
def test_no_library_older_than_the_generated_code_is_accepted(distribution: str, file: str, pattern: str) -> None:
    generated = re.search(pattern, (GENERATED / file).read_text())
    assert generated is not None
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"{distribution}>={generated[1]}" in dependencies
