"""What it runs on: workers, memory, GPUs, the process."""

from __future__ import annotations

from k8s.dashboard.graph import Graph, Row, query, rate

WORKERS = Row(
    "Workers and memory",
    (
        Graph(
            "Workers",
            "short",
            (query("sum by (role, state) (longspan_workers{$servers})", "{{role}} {{state}}"),),
            stacked=True,
        ),
        Graph(
            "Restarts of workers",
            "short",
            (
                query(
                    "sum by (role, reason) "
                    "(increase(longspan_worker_restarts_total{$servers}[$__rate_interval]))",
                    "{{role}} {{reason}}",
                ),
            ),
        ),
        Graph(
            "Memory",
            "percentunit",
            (
                query(
                    "longspan_memory_used_bytes{$servers}"
                    " / (longspan_memory_limit_bytes{$servers} > 0)"
                ),
            ),
            "Of the control group, which may be a container, else of the host.",
            limit=0.9,
        ),
        Graph(
            "Memory of workers",
            "bytes",
            (query("sum by (role) (longspan_worker_memory_bytes{$servers})", "{{role}}"),),
            stacked=True,
        ),
    ),
)

GPU = Row(
    "GPU",
    (
        Graph(
            "Utilisation",
            "percentunit",
            (query("longspan_gpu_utilization_ratio{$servers}", "{{instance}} GPU {{gpu}}"),),
        ),
        Graph(
            "Memory",
            "percentunit",
            (
                query(
                    "longspan_gpu_memory_used_bytes{$servers}"
                    " / (longspan_gpu_memory_total_bytes{$servers} > 0)",
                    "{{instance}} GPU {{gpu}}",
                ),
            ),
            "The page pool is taken at the start and does not grow.",
            limit=0.9,
        ),
    ),
)

PROCESS = Row(
    "Process",
    (
        Graph(
            "CPU of the server",
            "short",
            (query("rate(process_cpu_seconds_total{$servers}[$__rate_interval])"),),
            "Cores, without those of workers. Near 1 the event loop is the limit.",
        ),
        Graph("Memory of the server", "bytes", (query("process_resident_memory_bytes{$servers}"),)),
        Graph(
            "Open files",
            "percentunit",
            (query("process_open_fds{$servers} / (process_max_fds{$servers} > 0)"),),
            limit=0.8,
        ),
        Graph("Uptime", "s", (query("time() - process_start_time_seconds{$servers}"),)),
        Graph(
            "Versions",
            "short",
            (query("count by (version) (longspan_build_info{$servers})", "{{version}}"),),
        ),
        Graph(
            "Spans",
            "ops",
            (
                rate("longspan_spans_exported_total", "instance"),
                query(
                    "sum by (instance) "
                    "(rate(longspan_spans_dropped_total{$servers}[$__rate_interval]))",
                    "dropped {{instance}}",
                ),
                query("longspan_tracing_enabled{$servers}", "on {{instance}}"),
            ),
            "Empty where tracing is off.",
        ),
    ),
)
