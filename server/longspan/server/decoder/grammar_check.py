"""Compiles a request's grammar beforehand, in a process of its own that can be killed.

A small schema can take a compiler for ever. No worker sees one that did not pass here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections import OrderedDict

from longspan.server.decoder.options import PATH, GenerationOptions
from longspan.server.errors import InvalidRequest

COMMAND = (sys.executable, "-m", "longspan.worker.grammar_check")
LONGEST_S = 10.0
"""Of a check, which limits its own processor time; it usually takes a quarter of a second."""
EXIT_BAD_GRAMMAR = 1
TOO_LONG = "takes too much time or memory to compile"
AT_ONCE = 2
REMEMBERED = 1024


class GrammarCheck:
    """Remembers what compiles and what does not, by digest; bound to the running loop.

    Args:
        longest_s: how long one check may take.
    """

    def __init__(self, longest_s: float = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._found: OrderedDict[bytes, str | None] = OrderedDict()
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def check(self, options: GenerationOptions) -> None:
        """Let a request pass whose grammar compiles in time, or that has none.

        Raises:
            InvalidRequest: it does not compile, or takes too long.
        """
        if options.json_schema is not None:
            await self._check("JSON_SCHEMA", options.json_schema, "json_schema")
        elif options.regex is not None:
            await self._check("REGEX", options.regex, "regex")

    async def _check(self, kind: str, source: str, field: str) -> None:
        fault = await self._fault(json.dumps({"kind": kind, "source": source}).encode())
        if fault is not None:
            raise InvalidRequest(fault, field=f"{PATH}.{field}")

    async def _fault(self, message: bytes) -> str | None:
        """What is wrong with the grammar; None if nothing is."""
        digest = hashlib.sha256(message).digest()
        if digest in self._found:
            self._found.move_to_end(digest)
            return self._found[digest]
        async with self._slots:
            status, said = await self._compile(message)
        if status not in (0, EXIT_BAD_GRAMMAR) or (status and not said):
            # Killed, or broken in itself: the machine may only have been busy.
            return TOO_LONG
        self._found[digest] = said if status else None
        if len(self._found) > REMEMBERED:
            self._found.popitem(last=False)
        return self._found[digest]

    async def _compile(self, message: bytes) -> tuple[int | None, str]:
        """How the check ended, None where it had to be killed, and what it said."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*COMMAND, stdin=pipe, stdout=pipe)
        try:
            async with asyncio.timeout(self._longest_s):
                said, _ = await process.communicate(message)
        except TimeoutError:
            return None, ""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode, said.decode("utf-8", "replace").strip()
