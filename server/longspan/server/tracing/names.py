"""Names of spans and attributes; docs/tracing.md says what each means.

Attributes are counts, ids, names of policies and models: never text, titles or questions.
"""

from __future__ import annotations

from typing import Final

UPLOAD: Final = "upload"
TOKENISE: Final = "tokenise"
EMBED: Final = "embed"
RANK: Final = "rank"
QUEUE: Final = "queue"
LOOKUP: Final = "look up answer"
CHECK: Final = "check quotations"

WORKER_LOST: Final = "longspan.worker.lost"

ERROR_TYPE: Final = "error.type"

RPC_SYSTEM: Final = "rpc.system"
RPC_SERVICE: Final = "rpc.service"
RPC_METHOD: Final = "rpc.method"
RPC_GRPC_STATUS_CODE: Final = "rpc.grpc.status_code"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
FIRST_CHUNK_S: Final = "gen_ai.response.time_to_first_chunk"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"

REQUEST_ID: Final = "longspan.request_id"
TENANT: Final = "longspan.tenant"
TASK: Final = "longspan.task"
PRIORITY: Final = "longspan.priority"
ATTENTION: Final = "longspan.attention"
RETRIES: Final = "longspan.retries"
ANSWER_CACHE: Final = "longspan.answer_cache"
DOCUMENT_ID: Final = "longspan.document.id"
DOCUMENTS: Final = "longspan.documents"
BYTES: Final = "longspan.bytes"
TOKENS: Final = "longspan.tokens"
UPLOAD_ID: Final = "longspan.upload.id"
RESUMED_AT: Final = "longspan.upload.resumed_at"
PIECES: Final = "longspan.pieces"
PASSAGES: Final = "longspan.passages"
BATCHES: Final = "longspan.batches"
CITATIONS: Final = "longspan.citations"
VERIFIED: Final = "longspan.quotations.verified"
UNVERIFIED: Final = "longspan.quotations.unverified"
ATTEMPT: Final = "longspan.attempt"
WORKER: Final = "longspan.worker"
