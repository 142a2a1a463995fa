"""Small helpers for structured concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import NoReturn, TypeVar

R = TypeVar("R")


async def run_both(*coroutines: Coroutine[object, object, None]) -> None:
    """Run all to their end; the first failure cancels the others and is raised bare."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except BaseExceptionGroup as failures:
        raise_first(failures)


def raise_first(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise the first exception inside ``group``, without the group around it."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    raise first from first.__cause__


async def cancel_and_wait(task: asyncio.Task[R]) -> None:
    """Cancel a task of ours and wait until it has cleaned up; its outcome is dropped."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


async def first_of(*coroutines: Coroutine[object, object, R]) -> R:
    """The result of what ends first, or its exception; the others are cancelled."""
    tasks = [asyncio.create_task(one) for one in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for one in tasks:
            await cancel_and_wait(one)


async def in_thread(threads: Executor, call: Callable[[], R]) -> R:
    """Run a blocking call in a thread; when cancelled, wait for it before letting go.

    What the call uses (an open file, a hash state) is thereby never closed under it.
    """
    future = asyncio.get_running_loop().run_in_executor(threads, call)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise


async def while_running(
    main: Coroutine[object, object, R], background: Coroutine[object, object, None]
) -> R:
    """Run ``main`` with ``background`` beside it, which is cancelled when ``main`` ends."""
    try:
        async with asyncio.TaskGroup() as group:
            beside = group.create_task(background)
            result = await main
            beside.cancel()
    except BaseExceptionGroup as failures:
        raise_first(failures)
    return result
