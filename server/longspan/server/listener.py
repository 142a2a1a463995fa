"""The gRPC ports: the API, and the admin port if there is one."""

from __future__ import annotations

import socket
from typing import NoReturn, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from longspan.server.aio import first_of
from longspan.server.config import Config
from longspan.server.errors import ConfigError, ServingFailed
from longspan.server.grpc_server import failure, grpc_server
from longspan.server.health import Health
from longspan.server.limits import Limits
from longspan.server.services.application import Application
from longspan.server.services.auth_interceptor import AuthInterceptor
from longspan.server.services.cache_service import CacheService
from longspan.server.services.call_interceptor import CallInterceptor
from longspan.server.services.document_service import DocumentService
from longspan.server.services.errors_interceptor import ErrorsInterceptor
from longspan.server.services.inference_service import InferenceService
from longspan.server.services.metrics_interceptor import MetricsInterceptor
from longspan.v1 import (
    cache_service_pb2,
    cache_service_pb2_grpc,
    document_service_pb2,
    document_service_pb2_grpc,
    inference_service_pb2,
    inference_service_pb2_grpc,
)

MIB = 1 << 20
ADMIN_MESSAGE_BYTES = 64 * 1024
LAST_PORT = 65535
# Well above the admission limit, which answers with a reason; this fuse does not.
FUSE_FACTOR = 4


def _options(limits: Limits, message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", 4 * MIB),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.max_concurrent_streams", 1024),
        # Without the probe a stalled reader holds about 1 MiB a stream instead of 21.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", MIB),
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_s * 1000)),
        # A second server on the port must fail, not share it.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ping during a long silence (the misspelt name of this key is ignored).
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]


class Listener:
    """Bound ports and the services behind them.

    Attributes:
        port: of the API.
        admin_port: of the admin services, or None.
    """

    def __init__(
        self,
        config: Config,
        application: Application,
        health: Health,
        credentials: grpc.ServerCredentials | None,
    ) -> None:
        self._health = health
        limits = config.limits
        self._api = grpc_server(
            # In this order: what stands before sees the statuses of what stands behind.
            interceptors=[
                CallInterceptor(application.tracing),
                MetricsInterceptor(application.metrics),
                AuthInterceptor(application.admission, limits),
                ErrorsInterceptor(),
            ],
            options=_options(limits, limits.message_bytes),
            maximum_concurrent_rpcs=FUSE_FACTOR * limits.requests,
        )
        documents = DocumentService(application)
        inference = InferenceService(application)
        document_service_pb2_grpc.add_DocumentServiceServicer_to_server(documents, self._api)
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(inference, self._api)
        cache = CacheService(application)
        cache_service_pb2_grpc.add_CacheServiceServicer_to_server(cache, self._api)
        health_pb2_grpc.add_HealthServicer_to_server(health.servicer, self._api)
        self.port = _bind(self._api, config.listen, credentials)
        self._admin: grpc.aio.Server | None = None
        self.admin_port: int | None = None
        if config.admin_listen is not None:
            # Health and reflection: nobody has to send much to ask for them.
            self._admin = grpc_server(_options(limits, ADMIN_MESSAGE_BYTES))
            health_pb2_grpc.add_HealthServicer_to_server(health.servicer, self._admin)
            reflection.enable_server_reflection(_service_names(), self._admin)
            self.admin_port = _bind(self._admin, config.admin_listen, None)

    @classmethod
    async def start(
        cls,
        config: Config,
        application: Application,
        health: Health,
        credentials: grpc.ServerCredentials | None,
    ) -> Self:
        """Bind and serve; the admin port is always plain text.

        Raises:
            ConfigError: an address is malformed or in use.
        """
        listener = cls(config, application, health, credentials)
        for server in (listener._api, listener._admin):
            if server is not None:
                await server.start()
        return listener

    async def failure(self) -> NoReturn:
        """Wait until a port takes no more calls though nobody has stopped it; may be cancelled.

        Raises:
            ServingFailed: that is so.
        """
        servers = [server for server in (self._api, self._admin) if server is not None]
        error = await first_of(*(failure(server) for server in servers))
        raise ServingFailed(f"a port is served no more: {error!r}") from error

    async def say_not_serving(self) -> None:
        """Answer health checks with NOT_SERVING from now on."""
        await self._health.drain()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, wait for running ones, then cut them."""
        await self._health.drain()
        await self._api.stop(grace_s)
        if self._admin is not None:
            await self._admin.stop(0)


def check_free(address: str) -> None:
    """Find out at once whether an address can be listened on; another may still be faster.

    Raises:
        ConfigError: it is malformed or in use.
    """
    host, port = host_and_port(address)
    try:
        [(family, kind, protocol, _, where), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise not_free(address) from error


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    host_and_port(address)
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise not_free(address) from error
    if port == 0:
        raise not_free(address)
    return port


def host_and_port(address: str) -> tuple[str, int]:
    """An address taken apart.

    Raises:
        ConfigError: it is malformed.
    """
    # gRPC takes a port modulo 65536, and picks one where there is none.
    host, _, number = address.rpartition(":")
    if not (host and number.isascii() and number.isdecimal() and int(number) <= LAST_PORT):
        raise ConfigError(f"cannot listen on {address!r}: an address is host:port")
    return host.strip("[]"), int(number)


def not_free(address: str) -> ConfigError:
    """The one wording of an address that cannot be had."""
    return ConfigError(
        f"cannot listen on {address}: it is in use, or not an address of this machine"
    )


def _service_names() -> list[str]:
    files = (document_service_pb2, inference_service_pb2, cache_service_pb2, health_pb2)
    names = [
        service.full_name for file in files for service in file.DESCRIPTOR.services_by_name.values()
    ]
    return [*names, reflection.SERVICE_NAME]
