"""protos/gen is what the .proto files say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "protos" / "generate.py"
COMMITTED = ROOT / "protos" / "gen"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), "--check", str(tmp_path)], check=True)
    fresh, committed = contents(tmp_path), contents(COMMITTED)
    assert sorted(fresh) == sorted(committed), "files came or went; run `make protos`"
    assert [path for path in fresh if fresh[path] != committed[path]] == [], "stale; run `make protos`"
