"""What the services work with; put together once, by ``app``."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.server.decoder.decoder import Decoder
from longspan.server.embedder import Embedder
from longspan.server.errors import WorkersUnavailable
from longspan.server.index.indexes import Indexes
from longspan.server.kv.cache import KvCache
from longspan.server.limits import Limits
from longspan.server.metrics.metrics import Metrics
from longspan.server.queue.job import RequestId
from longspan.server.results.results import Results
from longspan.server.services.admission import Admission
from longspan.server.services.intake import Intake
from longspan.server.store.library import Library
from longspan.server.upload.desk import UploadDesk

RETRY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The parts behind the API.

    Attributes:
        embedder, indexes: None without an encoder.
        decoder, kv: None without a generating model.
    """

    limits: Limits
    admission: Admission
    library: Library
    desk: UploadDesk
    intake: Intake
    embedder: Embedder | None
    indexes: Indexes | None
    decoder: Decoder | None
    kv: KvCache | None
    results: Results
    metrics: Metrics

    def require_embedder(self) -> Embedder:
        """The embedder.

        Raises:
            WorkersUnavailable: the server runs without an encoder.
        """
        if self.embedder is None:
            raise WorkersUnavailable(
                self._without_encoder(),
                retry_after_s=RETRY_S,
            )
        return self.embedder

    def position(self, request_id: RequestId) -> int:
        """Jobs ahead of a request; 0 when none of its own wait."""
        served = [part.dispatcher for part in (self.embedder, self.decoder) if part is not None]
        return max((one.position(request_id) or 0 for one in served), default=0)

    def _without_encoder(self) -> str:
        if self.decoder is not None:
            return "this server runs without an encoder: only its decoder answers"
        return "this server runs without a model: it stores documents and answers nothing"
