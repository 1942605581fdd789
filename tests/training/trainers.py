"""Trainers of tests: each a few lines of Python that keep the contract, or break it in one way."""

import sys
from pathlib import Path

from controlplane.domain.trainer import Trainer

OPENING = """
import json, os, pathlib, sys, time
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
dataset, base, output = (pathlib.Path(arguments[name]) for name in ("--dataset", "--base", "--output"))
parameters = json.loads(pathlib.Path(arguments["--parameters"]).read_text())
def progress(fraction, message=""):
    with open(output / "progress.jsonl", "a") as file:
        file.write(json.dumps({"fraction": fraction, "message": message}) + "\\n")
def deliver(**metrics):
    (output / "model").mkdir()
    for path in base.iterdir():
        (output / "model" / path.name).write_bytes(path.read_bytes())
    (output / "metrics.json").write_text(json.dumps(metrics))
"""
GOOD = 'print("reading", len(list(dataset.iterdir()))); progress(0.5, "half"); deliver(auc=0.9); print("done")'


def trainer(
    body: str,
    *,
    time_limit_seconds: float = 60.0,
    memory_bytes_max: int = 1 << 30,
    output_bytes_max: int = 64 << 20,
    network: bool = False,
    read_paths: tuple[Path, ...] = (),
) -> Trainer:
    return Trainer(
        id="test",
        command=(sys.executable, "-c", OPENING + body),
        time_limit_seconds=time_limit_seconds,
        memory_bytes_max=memory_bytes_max,
        output_bytes_max=output_bytes_max,
        network=network,
        read_paths=tuple(map(str, read_paths)),
    )
