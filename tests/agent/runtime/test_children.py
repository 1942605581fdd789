"""Children that answer, err, crash, hang and eat memory."""

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest

from agent.domain.errors import Reason
from agent.runtime.children import ChildError, run_child


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_an_answer_is_the_childs_json() -> None:
    code = "import json, sys; json.dump({'ok': True, 'got': json.load(sys.stdin)['question']}, sys.stdout)"
    answer = await run_child({"question": 6}, timeout_seconds=30, command=python(code))
    assert answer["got"] == 6


CASES = {
    "says why": ('print(\'{"ok": false, "error": "no such operation"}\')', Reason.COMPILE_FAILED, "no such operation"),
    "aborts": ("import os; os.abort()", Reason.COMPILE_CRASHED, "SIGABRT"),
    "is killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Reason.COMPILE_CRASHED, "SIGKILL"),
    "exits": ("import sys; sys.exit('illegal instruction')", Reason.COMPILE_CRASHED, "code 1: illegal instruction"),
    "is cut off": ("print('{\"ok\": tr')", Reason.COMPILE_CRASHED, "cut off"),
    "says too much": ("print('x' * (2 << 20))", Reason.COMPILE_CRASHED, "more than"),
    "never ends to speak": ("while True: print('x' * 4096)", Reason.COMPILE_CRASHED, "more than"),
    "answers a list": ("print('[1]')", Reason.COMPILE_CRASHED, "is none"),
    "answers without a word": ("print('{}')", Reason.COMPILE_CRASHED, "is none"),
    "says ok but means it not": ("print('{\"ok\": 1}')", Reason.COMPILE_FAILED, "it failed"),
    "fails with no text": ('print(\'{"ok": false, "error": [1]}\')', Reason.COMPILE_FAILED, "[1]"),
    "complains for ever": (
        "import sys; sys.stderr.write('x' * (64 << 20)); sys.stderr.write(chr(10) + 'last'); sys.exit(3)",
        Reason.COMPILE_CRASHED,
        "code 3: last",
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_bad_ends_are_told_apart(case: str) -> None:
    code, reason, text = CASES[case]
    with pytest.raises(ChildError) as caught:
        await run_child({}, timeout_seconds=30, command=python(code))
    assert caught.value.reason is reason
    assert text in str(caught.value)


async def test_a_hung_child_is_ended() -> None:
    # Others may be about: multiprocessing's resource tracker lives on once a test has had shared memory.
    before = psutil.Process().children(recursive=True)
    with pytest.raises(ChildError) as caught:
        await run_child({}, timeout_seconds=0.2, command=python("import time; time.sleep(600)"))
    assert caught.value.reason is Reason.COMPILE_TIMED_OUT
    assert psutil.Process().children(recursive=True) == before


async def test_a_cancelled_wait_ends_the_child(tmp_path: Path) -> None:
    pipe = tmp_path / "id"
    os.mkfifo(pipe)
    code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    running = asyncio.create_task(run_child({}, timeout_seconds=60, command=[*python(code), str(pipe)]))
    identity = int(await asyncio.to_thread(pipe.read_text))
    assert psutil.pid_exists(identity)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not psutil.pid_exists(identity)


async def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    """Killed without a word, the agent leaves no compiler running."""
    pipe = tmp_path / "id"
    os.mkfifo(pipe)
    child = (
        "import json, os, sys, time; from agent.runtime.child import _confine;"
        "_confine(os.getppid(), {'niceness': 0, 'memory_bytes': 1 << 30});"
        "open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    )
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    process = await asyncio.create_subprocess_exec(*python(parent), child, str(pipe))
    orphan = psutil.Process(int(await asyncio.to_thread(pipe.read_text)))
    process.kill()
    await process.wait()
    try:
        await asyncio.to_thread(orphan.wait, 10)
    except psutil.TimeoutExpired:
        assert orphan.status() == psutil.STATUS_ZOMBIE  # dead, on a box whose init does not reap


async def test_the_real_child_keeps_its_limits() -> None:
    """The child confines itself before it loads anything."""
    code = (
        "import json, sys; from agent.runtime import child; request = json.load(sys.stdin);"
        "request['memory_bytes'] = 64 << 20; import os; child._confine(os.getppid(), request);"
        "big = bytearray(256 << 20)"
    )
    with pytest.raises(ChildError) as caught:
        await run_child({}, timeout_seconds=30, command=python(code))
    assert caught.value.reason is Reason.COMPILE_CRASHED
    assert "MemoryError" in str(caught.value)


async def test_the_real_child_refuses_what_it_cannot_do() -> None:
    request = {"command": "devices", "plugins": {}, "only": ["NOSUCH"]}
    with pytest.raises(ChildError) as caught:
        await run_child(request, timeout_seconds=60)
    assert caught.value.reason is Reason.COMPILE_FAILED
    assert "NOSUCH" in str(caught.value)


async def test_what_a_child_started_ends_with_it() -> None:
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); print('{\"ok\": true}')"
    )
    before = {process.pid for process in psutil.process_iter()}
    await run_child({}, timeout_seconds=30, command=python(code))
    left = [each for each in psutil.process_iter(["cmdline"]) if each.pid not in before]
    assert not [each for each in left if "time.sleep(600)" in (each.info["cmdline"] or ())[-1:]]
