"""What callers see: traffic and latency."""

from __future__ import annotations

from k8s.dashboard.graph import Graph, Row, quantiles, query, rate

TRAFFIC = Row(
    "Traffic",
    (
        Graph(
            "Firing alerts",
            "short",
            (
                query(
                    'count by (alertname, severity) (ALERTS{alertname=~"Longspan.+",'
                    'alertstate="firing"})',
                    "{{severity}}: {{alertname}}",
                ),
            ),
            "Each has a page in docs/runbooks.",
            stacked=True,
        ),
        Graph("Calls", "reqps", (rate("longspan_rpc_started_total", "method"),), stacked=True),
        Graph(
            "Calls by status",
            "reqps",
            (rate("longspan_rpc_duration_seconds_count", "status"),),
            "INTERNAL and UNKNOWN are the server's faults.",
            stacked=True,
        ),
        Graph("Refusals", "reqps", (rate("longspan_requests_rejected_total", "reason"),)),
        Graph(
            "Active requests and open uploads",
            "short",
            (
                query("sum(longspan_requests_active{$servers})", "requests"),
                query("sum(longspan_uploads_open{$servers})", "uploads"),
            ),
        ),
        Graph(
            "Upload",
            "Bps",
            (
                query(
                    "sum by (instance) "
                    "(rate(longspan_upload_bytes_total{$servers}[$__rate_interval]))"
                ),
            ),
        ),
        Graph(
            "Documents",
            "short",
            (query("sum by (instance) (longspan_documents{$servers})"),),
        ),
        Graph(
            "Bytes of documents",
            "bytes",
            (query("sum by (instance) (longspan_document_bytes{$servers})"),),
        ),
    ),
)

LATENCY = Row(
    "Latency",
    (
        Graph(
            "Time to first token",
            "s",
            quantiles("longspan_time_to_first_token_seconds"),
            "From the last byte of the request.",
        ),
        Graph(
            "Time per output token",
            "s",
            quantiles("longspan_time_per_output_token_seconds"),
            limit=0.5,
        ),
        Graph(
            "Short requests",
            "s",
            quantiles("longspan_request_duration_seconds", "task", 'length="short"'),
            "Below 4,096 tokens, from arrival to the end of the answer, uploads included.",
            limit=0.5,
        ),
        Graph(
            "Long requests",
            "s",
            quantiles("longspan_request_duration_seconds", "task", 'length="long"'),
            "From 4,096 tokens on.",
        ),
        Graph("Calls", "s", quantiles("longspan_rpc_duration_seconds", "method")),
        Graph(
            "Event loop lag",
            "s",
            quantiles("longspan_event_loop_lag_seconds"),
            "Every stream of a server waits for its event loop.",
            limit=0.1,
        ),
    ),
)
