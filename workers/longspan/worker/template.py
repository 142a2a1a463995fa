"""``python -m longspan.worker.template``: a process that has imported everything and forks workers.

A worker spends most of its start in importing libraries. Where many are started, in development
and in tests, each can be a fork of one process that has imported them: it is ready in less than
a second.

Whoever connects to the template's socket sends one datagram, ``{"arguments": [...], "folder":
...}`` in JSON, with two file descriptors: the worker's standard input and error. The answer is
``{"pid": N}`` with a pidfd; when the worker has ended, ``{"status": N}`` follows, negative for a
signal. A fork is safe because the template has one thread and has never computed anything; it
must not touch a GPU, so its workers run on the CPU or start the device themselves.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import selectors
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

REQUEST_BYTES = 1 << 16
BACKLOG = 64
PATIENCE_S = 1.0
STDIN = 0


class Template:
    """Listens, forks, and tells how the forks have ended.

    Args:
        path: of the socket; made private by the caller's umask. One that a dead template has
            left there is replaced.
        watch_stdin: end when standard input does.
    """

    def __init__(self, path: Path, *, watch_stdin: bool) -> None:
        self._path = path
        if path.is_socket():
            path.unlink()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(BACKLOG)
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(self._listener, selectors.EVENT_READ)
        if watch_stdin:
            self._waiting.register(STDIN, selectors.EVENT_READ)
        # The pidfd of each worker, with its pid and who asked for it.
        self._workers: dict[int, tuple[int, socket.socket]] = {}

    def run(self) -> list[str] | None:
        """Serve until standard input ends, or for ever.

        Returns:
            None then; in a fork, the arguments of the worker that this process has become.
        """
        while True:
            for key, _ in self._waiting.select():
                if key.fileobj is self._listener:
                    client, _ = self._listener.accept()
                    arguments = self._fork(client)
                    if arguments is not None:
                        return arguments
                elif key.fileobj == STDIN:
                    if not os.read(STDIN, 4096):
                        self._path.unlink(missing_ok=True)
                        return None
                else:
                    self._bury(key.fd)

    def _fork(self, client: socket.socket) -> list[str] | None:
        client.settimeout(PATIENCE_S)
        try:
            data, descriptors, _, _ = socket.recv_fds(client, REQUEST_BYTES, 2)
        except OSError:  # gone, or silent: others wait meanwhile
            data, descriptors = b"", []
        client.settimeout(None)
        if len(descriptors) != 2:  # somebody who only looked whether we are here
            client.close()
            return None
        assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose threads"
        request = json.loads(data)
        pid = os.fork()
        if pid == 0:
            client.close()
            self._become_worker(descriptors, request["folder"])
            return list(request["arguments"])
        for descriptor in descriptors:
            os.close(descriptor)
        self._answer(client, pid)
        return None

    def _answer(self, client: socket.socket, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        self._workers[pidfd] = (pid, client)
        self._waiting.register(pidfd, selectors.EVENT_READ)
        _send(client, {"pid": pid}, [pidfd])

    def _bury(self, pidfd: int) -> None:
        pid, client = self._workers.pop(pidfd)
        self._waiting.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        _send(client, {"status": os.waitstatus_to_exitcode(status)}, [])
        client.close()

    def _become_worker(self, descriptors: Sequence[int], folder: str) -> None:
        standard_input, standard_error = descriptors
        self._listener.close()
        self._waiting.close()
        for pidfd, (_, client) in self._workers.items():
            os.close(pidfd)
            client.close()
        os.dup2(standard_input, 0)
        os.dup2(standard_error, 2)
        for descriptor in descriptors:
            os.close(descriptor)
        os.chdir(folder)


def _send(client: socket.socket, message: dict[str, int], descriptors: list[int]) -> None:
    try:
        socket.send_fds(client, [json.dumps(message).encode()], descriptors)
    except OSError:
        # Who asked is gone; the worker sees that by its standard input.
        return


def preload() -> None:
    """Import what workers of both roles need; nothing is computed and no device is touched."""
    import longspan.worker.encoding.serving
    import longspan.worker.generation.serving
    import longspan.worker.process  # noqa: F401

    # What is here is never garbage: collecting it would copy its pages in every fork.
    gc.collect()
    gc.freeze()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a template, or, in a fork of it, a worker."""
    parser = argparse.ArgumentParser(prog="longspan.worker.template", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on")
    parser.add_argument(
        "--watch-stdin", action="store_true", help="end when standard input reaches its end"
    )
    options = parser.parse_args(argv)
    # Before the libraries are loaded: a thread of theirs would be missing in a fork.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    os.umask(0o077)
    preload()
    arguments = Template(options.socket, watch_stdin=options.watch_stdin).run()
    if arguments is None:
        return 0
    from longspan.worker.__main__ import main as work

    return work(arguments)


if __name__ == "__main__":
    sys.exit(main())
