"""gRPC's credentials of the API port, which follow the files."""

from __future__ import annotations

import grpc

from longspan.server.reloaded import Reloaded
from longspan.server.tls.files import TlsFiles, read_tls_files
from longspan.server.tls.settings import TlsSettings


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials | None:
    """Credentials that use the newest files at every handshake; None without TLS.

    Connections that stand keep what they were made with.

    Raises:
        ConfigError: the files cannot be used.
    """
    if settings.cert is None or settings.key is None:
        return None
    cert, key, client_ca = settings.cert, settings.key, settings.client_ca
    paths = [path for path in (cert, key, client_ca) if path is not None]
    # At every handshake, which costs far more than looking at three files.
    files = Reloaded(paths, lambda: read_tls_files(cert, key, client_ca), every_s=0.0)
    shown = files.value()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # Called from gRPC's own threads; None, which its types forget, keeps what it has.
        nonlocal shown
        newest = files.value()
        if newest is shown:
            return None
        shown = newest
        return _configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown),
        fetch,  # type: ignore[arg-type]
        require_client_authentication=client_ca is not None,
    )


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(files.key, files.chain)], root_certificates=files.client_ca
    )
