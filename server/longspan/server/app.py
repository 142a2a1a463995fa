"""Puts the server together, starts it, and takes it apart in reverse order."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from longspan.server.aio import cancel_and_wait, first_of, in_thread, raise_first
from longspan.server.auth.opening import open_authenticator
from longspan.server.config import Config
from longspan.server.decoder.decoder import Decoder
from longspan.server.decoder.folder import resolve_folder
from longspan.server.decoder.policy_digests import policy_digests
from longspan.server.decoder.template import load_template
from longspan.server.decoder.tokens import load_prompt_tokeniser
from longspan.server.embedder import Embedder
from longspan.server.encoders import tokenizer_path
from longspan.server.errors import ConfigError, LongspanError, ServingFailed, WorkersUnavailable
from longspan.server.exposure import check_exposure
from longspan.server.health import Health
from longspan.server.index.indexes import Indexes
from longspan.server.kv.cache import KvCache
from longspan.server.kv.keeper import Keeper
from longspan.server.listener import Listener, check_free
from longspan.server.metrics.exporter import Exporter
from longspan.server.metrics.metrics import Metrics
from longspan.server.metrics.role import RoleMetrics
from longspan.server.metrics.sampler import Sampler, watch_start
from longspan.server.pool.config import PoolConfig
from longspan.server.pool.model_info import ModelInfo
from longspan.server.queue.dispatcher import Dispatcher
from longspan.server.queue.fair_queue import QueueLimits
from longspan.server.queue.sequences import SequenceDispatcher
from longspan.server.results.opening import files_digest, open_results
from longspan.server.services.admission import Admission
from longspan.server.services.application import Application
from longspan.server.services.intake import Intake
from longspan.server.store.library import Library
from longspan.server.text.tokeniser import load_tokenizer
from longspan.server.tls.credentials import server_credentials
from longspan.server.tracing.tracing import Tracing
from longspan.server.upload.desk import UploadDesk
from longspan.server.workers import decoder_pool, encoder_pool, runtime_dir

log = logging.getLogger(__name__)

# Tokenising holds the interpreter for short stretches between long native ones: more
# threads than this only add delay to the event loop.
TEXT_THREADS = 2
FILE_THREADS = 4
SWEEP_S = 60.0
# For the last answers to leave, once the calls behind them have ended.
FLUSH_S = 1.0
# For calls that were cut to put away what they held.
UNWIND_S = 5.0


class Server:
    """One running server.

    Attributes:
        application: the parts behind the API.
        port: where it listens.
        admin_port: where health and reflection answer, if anywhere.
        metrics_port: where Prometheus scrapes, if anywhere.
    """

    def __init__(
        self,
        application: Application,
        listener: Listener,
        config: Config,
        exporter: Exporter | None,
        chores: Sequence[asyncio.Task[None]],
    ) -> None:
        self.application = application
        self.port = listener.port
        self.admin_port = listener.admin_port
        self.metrics_port = None if exporter is None else exporter.port
        self._listener = listener
        self._config = config
        self._chores = chores

    async def failure(self) -> NoReturn:
        """Wait until something fails without which there is no server; may be cancelled.

        Raises:
            ServingFailed: a port takes no more calls, or nobody does one of the chores any more.
        """
        await first_of(self._listener.failure(), *(_end(chore) for chore in self._chores))
        raise AssertionError("neither returns")

    async def drain(self) -> None:
        """Refuse new calls, let running ones finish for ``drain_s``, then cut them.

        The port stays open meanwhile, so that callers are told why they are refused.
        """
        await self._listener.say_not_serving()
        await self.application.admission.drain(self._config.drain_s)
        await self._listener.stop(FLUSH_S)


@asynccontextmanager
async def running_server(
    config: Config, pool: PoolConfig | None = None, model_pool: PoolConfig | None = None
) -> AsyncIterator[Server]:
    """Start everything; stop it in reverse when the block is left.

    Args:
        config: the settings.
        pool: which encoder processes to run instead of those that ``config`` describes.
        model_pool: likewise for the model.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    _check_before_loading(config)
    trusted = config.trust_tenant_metadata
    authenticator = open_authenticator(config.auth, trust_metadata=trusted)
    credentials = server_credentials(config.tls)
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        exporter = await _export(config, metrics, stack)
        tracing = await stack.enter_async_context(Tracing.running(config.tracing))
        library = await stack.enter_async_context(Library(config.data_dir, config.limits))
        files = stack.enter_context(ThreadPoolExecutor(FILE_THREADS, "files"))
        health = Health()
        sockets = runtime_dir(config.data_dir)
        encoders = pool or encoder_pool(config, sockets)
        try:
            async with asyncio.TaskGroup() as group:
                embedding = group.create_task(
                    _start_embedder(config, encoders, health, metrics, stack)
                )
                decoding = group.create_task(
                    _start_decoder(config, model_pool, sockets, health, metrics, stack)
                )
        except BaseExceptionGroup as failures:
            raise_first(failures)
        embedder, decoder = embedding.result(), decoding.result()
        indexes = None
        if embedder is not None:
            memory_bytes = config.limits.index_memory_bytes
            indexes = Indexes(library, embedder, memory_bytes=memory_bytes)
        results = await open_results(config, stack, metrics)
        desk = UploadDesk(library, config.limits, files, metrics.documents)
        application = Application(
            limits=config.limits,
            admission=Admission(config.limits, metrics.requests, authenticator),
            library=library,
            desk=desk,
            intake=Intake(desk, indexes, config.limits, metrics.documents),
            embedder=embedder,
            indexes=indexes,
            decoder=decoder,
            kv=None if decoder is None else KvCache(decoder.dispatcher),
            results=results,
            metrics=metrics,
            tracing=tracing,
        )
        chores: list[asyncio.Task[None]] = []
        if exporter is not None:
            sampler = Sampler(application, metrics)
            _beside("sampling of metrics", sampler.run(), chores, stack)
            _beside("watch on the event loop", sampler.watch_lag(), chores, stack)
        if decoder is not None:
            _beside("keeper of KV pages", Keeper(decoder.dispatcher, library).run(), chores, stack)
        _beside("sweep of uploads", _sweep(desk, config.limits.upload_lease_s), chores, stack)
        listener = await Listener.start(config, application, health, credentials)
        stack.push_async_callback(application.admission.drain, UNWIND_S)
        stack.push_async_callback(listener.stop, 0.0)
        server = Server(application, listener, config, exporter, chores)
        health.serving()
        yield server


async def _start_embedder(
    config: Config, pool: PoolConfig, health: Health, metrics: Metrics, stack: AsyncExitStack
) -> Embedder | None:
    if config.encoder == "none":
        return None
    tokenizer = load_tokenizer(tokenizer_path(config.encoder))
    dispatcher = Dispatcher(
        pool,
        _queue_limits(config),
        health_changed=partial(health.workers_changed, "encoder"),
        metrics=metrics.encoder,
    )
    model = await _ready(dispatcher, metrics.encoder, stack)
    threads = stack.enter_context(ThreadPoolExecutor(TEXT_THREADS, "text"))
    return Embedder(tokenizer, dispatcher, model, threads)


async def _start_decoder(
    config: Config,
    pool: PoolConfig | None,
    sockets: Path | None,
    health: Health,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> Decoder | None:
    if config.model is None:
        return None
    threads = stack.enter_context(ThreadPoolExecutor(TEXT_THREADS, "prompt"))
    model = config.model
    folder = await in_thread(threads, lambda: resolve_folder(model))
    template = await in_thread(threads, lambda: load_template(folder))
    tokeniser = await in_thread(threads, lambda: load_prompt_tokeniser(folder))
    dispatcher = SequenceDispatcher(
        pool or decoder_pool(config, folder, sockets),
        _queue_limits(config),
        health_changed=partial(health.workers_changed, "model"),
        metrics=metrics.decoder,
    )
    if config.attention_maps is not None:
        log.warning("hierarchical-linear is experimental: its far states are approximations")
    info = await _ready(dispatcher, metrics.decoder, stack)
    policies = await in_thread(
        threads, lambda: policy_digests(config.attention, config.attention_maps)
    )
    files = await in_thread(threads, lambda: files_digest(folder))
    return Decoder(template, tokeniser, dispatcher, info, threads, policies, files)


async def _ready(
    dispatcher: Dispatcher | SequenceDispatcher, metrics: RoleMetrics, stack: AsyncExitStack
) -> ModelInfo:
    """Start the workers; wait for the first."""
    dispatcher.start()
    stack.push_async_callback(dispatcher.stop)
    # A start that never ends has to be seen.
    watching = asyncio.create_task(watch_start(dispatcher.stats, metrics))
    try:
        return await dispatcher.wait_ready()
    except WorkersUnavailable as error:
        raise ConfigError(str(error)) from error
    finally:
        await cancel_and_wait(watching)


def _queue_limits(config: Config) -> QueueLimits:
    # Without tenants there is nobody to keep a share of the queue for.
    share = 0.5 if config.has_tenants else 1.0
    return QueueLimits(tokens=config.limits.queued_tokens, tenant_share=share)


def _check_before_loading(config: Config) -> None:
    """Find out in milliseconds what would otherwise fail after the model is loaded."""
    for address in (config.listen, config.admin_listen, config.metrics.listen):
        if address is not None:
            check_free(address)
    check_exposure(config.listen, config.tls, config.auth, insecure=config.insecure)
    ready_file = config.ready_file
    if ready_file is not None and not ready_file.parent.is_dir():
        raise ConfigError(f"ready_file {ready_file}: there is no folder {ready_file.parent}")


async def _export(config: Config, metrics: Metrics, stack: AsyncExitStack) -> Exporter | None:
    """Serve metrics from now on: a model may take minutes to load."""
    address = config.metrics.listen
    if address is None:
        return None
    exporter = await asyncio.to_thread(Exporter.start, address, metrics.registry)
    stack.push_async_callback(asyncio.to_thread, exporter.close)
    return exporter


async def _end(chore: asyncio.Task[None]) -> NoReturn:
    await asyncio.wait([chore])
    error = None if chore.cancelled() else chore.exception()
    raise ServingFailed(f"{chore.get_name()} has ended: {error!r}") from error


def _beside(
    name: str,
    chore: Coroutine[Any, Any, None],
    chores: list[asyncio.Task[None]],
    stack: AsyncExitStack,
) -> None:
    """Run what never ends by itself, until the server is stopped."""
    chores.append(asyncio.create_task(chore, name=name))
    stack.push_async_callback(cancel_and_wait, chores[-1])


async def _sweep(desk: UploadDesk, lease_s: float) -> None:
    while True:
        try:
            expired = await desk.expire()
        except (LongspanError, OSError, sqlite3.Error) as error:
            # A full disk now is no reason never to look again.
            log.warning("expired uploads not removed: %s", error)
        else:
            log.debug("%d uploads expired", expired)
        await asyncio.sleep(min(SWEEP_S, lease_s))
