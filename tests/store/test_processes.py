"""Several processes on one database, and processes that die."""

import asyncio
import subprocess
import sys

from controlplane.store import SqlStore, open_store
from tests.support.factories import SOLAR, WELD, make_model

_BUMP = """
import asyncio, sys
from dataclasses import replace
from controlplane.domain.errors import StaleWriteError
from controlplane.store import open_store

async def main(url, times):
    store = open_store(url)
    sys.stdin.readline()
    while times:
        try:
            async with store.write() as work:
                model = await work.models.get("solar")
                await work.models.save(replace(model, latest_version=model.latest_version + 1))
        except StaleWriteError:
            continue
        times -= 1
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

_WRITE_AND_HANG = """
import asyncio, sys
from tests.support.factories import make_model
from controlplane.store import open_store

async def main(url):
    store = open_store(url)
    async with store.write() as work:
        await work.models.add(make_model(id="solar"))
    async with store.write() as work:
        await work.models.add(make_model(id="weld"))
        print("acknowledged", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
"""


async def test_processes_that_update_one_row_never_lose_an_update(database_url: str, store: SqlStore) -> None:
    async with store.write() as work:
        await work.models.add(make_model())
    command = [sys.executable, "-c", _BUMP, database_url, "40"]
    processes = [await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE) for _ in range(2)]
    await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0]
    async with store.read() as work:
        assert (await work.models.get(SOLAR)).latest_version == 80


async def test_what_was_committed_survives_kill_9_and_nothing_else_does(database_url: str) -> None:
    command = [sys.executable, "-c", _WRITE_AND_HANG, database_url]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"acknowledged\n"
    process.kill()
    await process.wait()
    store = open_store(database_url)
    async with store.write() as work:
        assert await work.models.find(SOLAR) == make_model(id="solar")
        assert await work.models.find(WELD) is None
        await work.models.add(make_model(id="weld"))
    await store.close()
