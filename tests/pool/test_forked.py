"""Workers that are forks of a template: ended, killed, refused and described like any other."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import psutil
import pytest

from longspan.server.pool.process import ChildProcess
from tests.pool.harness import until
from tests.support.template import template_socket

AFRESH = ["/bin/sh", "-c", "echo afresh >&2; exit 3"]


def worker(folder: Path, model: str = "embedded") -> list[str]:
    """The command line of an encoder; a template is given what follows the program."""
    return ["python", "-m", "longspan.worker", "--watch-stdin", "--socket", str(folder / "s"),
            "--model", model, "--threads", "1"]  # fmt: skip


async def forked(folder: Path, model: str = "embedded") -> ChildProcess:
    """One fork."""
    return await ChildProcess.start(worker(folder, model), "worker", template_socket())


@pytest.fixture
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders for two sockets."""
    return [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")]


async def test_a_fork_serves_and_its_death_is_told(places: list[Path]) -> None:
    """Killed by somebody else; the other one goes on."""
    one, two = [await forked(place) for place in places]
    for place in places:
        await until((place / "s").exists, 60.0)
    assert psutil.Process(one.pid).ppid() == psutil.Process(two.pid).ppid()
    psutil.Process(one.pid).send_signal(signal.SIGKILL)
    assert await one.wait() == -signal.SIGKILL
    assert not await two.exits_within(0.1)
    two.terminate()
    assert await two.wait() == 0
    for process in (one, two):
        await process.reap()


async def test_a_fork_ends_with_the_end_of_its_standard_input(places: list[Path]) -> None:
    """No later fork holds the pipe open."""
    one, two = [await forked(place) for place in places]
    await until((places[0] / "s").exists, 60.0)
    assert one._process.stdin is not None
    one._process.stdin.close()
    assert await one.wait() == 0
    assert not await two.exits_within(0.1)
    await two.reap()


async def test_a_start_that_fails_says_why(places: list[Path]) -> None:
    """The exit status and last line are those of the worker."""
    process = await forked(places[0], "/absent")
    status = await process.wait()
    assert (await process.reap())[0] == status > 0
    assert "/absent" in process._tail.last()


async def test_without_a_template_a_worker_is_started_afresh(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A template that is gone costs seconds, not the worker."""
    process = await ChildProcess.start(AFRESH, "worker", tmp_path / "gone")
    assert await process.wait() == 3
    assert (await process.reap()) == (3, "afresh")
    assert "started afresh" in caplog.text


async def test_who_connects_and_says_nothing_keeps_nobody_waiting_for_long(
    places: list[Path],
) -> None:
    """Nor does somebody who is gone before the template looks."""
    silent, gone = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in "12")
    with silent:
        silent.connect(str(template_socket()))
        gone.connect(str(template_socket()))
        gone.close()
        process = await forked(places[0], "/absent")
        assert await process.wait() > 0
        await process.reap()


async def test_a_template_that_dies_costs_what_it_was_asked_for(tmp_path: Path) -> None:
    """Somebody who listens and hangs up is no template."""
    import socket

    path = tmp_path / "t"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        starting = asyncio.create_task(ChildProcess.start(AFRESH, "worker", path))
        client, _ = await asyncio.to_thread(listener.accept)
        await asyncio.to_thread(client.recv, 4096)
        client.close()
        process = await starting
    assert await process.wait() == 3
    await process.reap()
