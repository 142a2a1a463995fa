"""What the workers do: queues, batches, tokens, and what caches save them."""

from __future__ import annotations

from k8s.dashboard.graph import Graph, Row, quantiles, query, rate, share

QUEUES = Row(
    "Queue and batches",
    (
        Graph(
            "Jobs that wait",
            "short",
            (query("sum by (role) (longspan_queue_jobs{$servers})", "{{role}}"),),
        ),
        Graph(
            "Tokens that wait",
            "short",
            (query("sum by (role) (longspan_queue_tokens{$servers})", "{{role}}"),),
        ),
        Graph(
            "Age of the oldest job",
            "s",
            (query("max by (role) (longspan_queue_oldest_age_seconds{$servers})", "{{role}}"),),
            limit=30,
        ),
        Graph(
            "Wait for a batch",
            "s",
            quantiles("longspan_batch_wait_seconds", "role"),
            "From ready to be computed to being part of a step.",
            limit=0.1,
        ),
        Graph("Tokens in a batch", "short", quantiles("longspan_batch_tokens", "role")),
        Graph("Steps", "ops", (rate("longspan_steps_total", "role"),)),
    ),
)

TOKENS = Row(
    "Tokens",
    (
        Graph(
            "Tokens",
            "short",
            (rate("longspan_tokens_total", "kind"),),
            "A second. cached: taken from KV pages instead of computed.",
            stacked=True,
        ),
        Graph(
            "Share of prompt tokens that were cached",
            "percentunit",
            (
                query(
                    "sum(rate("
                    'longspan_tokens_total{$servers,kind="cached"}[$__rate_interval]))'
                    " / (sum(rate("
                    'longspan_tokens_total{$servers,kind=~"cached|prefill"}[$__rate_interval]))'
                    " > 0)",
                    "cached",
                ),
            ),
        ),
    ),
)

CACHES = Row(
    "KV and caches",
    (
        Graph(
            "KV pages of the pool",
            "short",
            (query('sum by (state) (longspan_kv_pages{$servers,tier="pool"})', "{{state}}"),),
            stacked=True,
        ),
        Graph(
            "KV pages beside and below the pool",
            "short",
            (query('sum by (tier) (longspan_kv_pages{$servers,tier!="pool"})', "{{tier}}"),),
        ),
        Graph(
            "Fullness of KV tiers",
            "percentunit",
            (
                query(
                    "sum by (tier) (longspan_kv_bytes{$servers})"
                    " / (sum by (tier) (longspan_kv_capacity_bytes{$servers}) > 0)",
                    "{{tier}}",
                ),
            ),
            "Full is normal: a full tier evicts.",
        ),
        Graph(
            "KV hits",
            "percentunit",
            (
                share(
                    'longspan_kv_lookups_total{$servers,result="hit"}',
                    "longspan_kv_lookups_total{$servers}",
                    "tier",
                ),
            ),
            "A tier is asked for what those above it do not have.",
        ),
        Graph(
            "Chosen pages that lay in a slot",
            "percentunit",
            (
                share(
                    'longspan_kv_slot_lookups_total{$servers,result="hit"}',
                    "longspan_kv_slot_lookups_total{$servers}",
                    "job",
                ),
            ),
            "The others were copied from the host's memory.",
        ),
        Graph(
            "Result cache hits",
            "percentunit",
            (
                share(
                    'longspan_result_cache_lookups_total{$servers,result="hit"}',
                    "longspan_result_cache_lookups_total{$servers}",
                    "level",
                ),
            ),
            "flight: answers shared while they were made.",
        ),
        Graph(
            "Result cache",
            "bytes",
            (query("sum by (level) (longspan_result_cache_bytes{$servers})", "{{level}}"),),
        ),
        Graph(
            "Open circuit breakers",
            "short",
            (
                query("max by (tier) (longspan_kv_breaker_open{$servers})", "KV {{tier}}"),
                query(
                    "max by (level) (longspan_result_cache_breaker_open{$servers})",
                    "results {{level}}",
                ),
            ),
        ),
        Graph(
            "Failures of KV tiers",
            "ops",
            (
                query(
                    "sum by (tier) "
                    "(rate(longspan_kv_store_failures_total{$servers}[$__rate_interval]))",
                    "not stored {{tier}}",
                ),
                query(
                    "sum(rate(longspan_kv_corrupt_total{$servers}[$__rate_interval]))", "damaged"
                ),
            ),
        ),
    ),
)
