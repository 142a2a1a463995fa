"""The metrics that alerts, dashboard and autoscaling rely on: names, kinds, labels, values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Values = frozenset[str] | None  # None: too many to name, as methods


@dataclass(frozen=True)
class Metric:
    """One family of series."""

    kind: Literal["gauge", "counter", "histogram"]
    labels: Mapping[str, Values] = field(default_factory=dict)

    def series(self, name: str) -> set[str]:
        """The names under which Prometheus keeps it."""
        if self.kind == "histogram":
            return {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
        return {name}


def _of(*values: str) -> Values:
    return frozenset(values)


_ROLE = {"role": _of("encoder", "decoder")}
_TIER = {"tier": _of("pool", "host", "ram", "disk")}
_LEVEL = {"level": _of("l1", "l2", "flight")}
_RESULT = {"result": _of("hit", "miss")}

LONGSPAN: Mapping[str, Metric] = {
    "longspan_build_info": Metric("gauge", {"version": None}),
    "longspan_rpc_started_total": Metric("counter", {"method": None}),
    "longspan_rpc_duration_seconds": Metric("histogram", {"method": None, "status": None}),
    "longspan_requests_active": Metric("gauge"),
    "longspan_requests_rejected_total": Metric("counter", {"reason": None}),
    "longspan_request_duration_seconds": Metric(
        "histogram", {"task": None, "length": _of("short", "long")}
    ),
    "longspan_upload_bytes_total": Metric("counter"),
    "longspan_uploads_open": Metric("gauge"),
    "longspan_queue_jobs": Metric("gauge", _ROLE),
    "longspan_queue_tokens": Metric("gauge", _ROLE),
    "longspan_queue_oldest_age_seconds": Metric("gauge", _ROLE),
    "longspan_batch_wait_seconds": Metric("histogram", _ROLE),
    "longspan_batch_tokens": Metric("histogram", _ROLE),
    "longspan_steps_total": Metric("counter", _ROLE),
    "longspan_tokens_total": Metric("counter", {"kind": _of("prefill", "cached", "decode")}),
    "longspan_time_to_first_token_seconds": Metric("histogram"),
    "longspan_time_per_output_token_seconds": Metric("histogram"),
    "longspan_kv_pages": Metric("gauge", {**_TIER, "state": _of("used", "cached", "free")}),
    "longspan_kv_bytes": Metric("gauge", _TIER),
    "longspan_kv_capacity_bytes": Metric("gauge", _TIER),
    "longspan_kv_lookups_total": Metric("counter", {**_TIER, **_RESULT}),
    "longspan_kv_slot_lookups_total": Metric("counter", _RESULT),
    "longspan_kv_store_failures_total": Metric("counter", _TIER),
    "longspan_kv_breaker_open": Metric("gauge", _TIER),
    "longspan_kv_corrupt_total": Metric("counter"),
    "longspan_result_cache_lookups_total": Metric("counter", {**_LEVEL, **_RESULT}),
    "longspan_result_cache_breaker_open": Metric("gauge", _LEVEL),
    "longspan_result_cache_bytes": Metric("gauge", _LEVEL),
    "longspan_workers": Metric("gauge", {**_ROLE, "state": _of("ready", "starting", "down")}),
    "longspan_worker_restarts_total": Metric(
        "counter", {**_ROLE, "reason": _of("exit", "signal", "hang", "start_failed")}
    ),
    "longspan_worker_memory_bytes": Metric("gauge", _ROLE),
    "longspan_memory_used_bytes": Metric("gauge"),
    "longspan_memory_limit_bytes": Metric("gauge"),
    "longspan_gpu_memory_used_bytes": Metric("gauge", {"gpu": None}),
    "longspan_gpu_memory_total_bytes": Metric("gauge", {"gpu": None}),
    "longspan_gpu_utilization_ratio": Metric("gauge", {"gpu": None}),
    "longspan_event_loop_lag_seconds": Metric("histogram"),
    "longspan_documents": Metric("gauge"),
    "longspan_document_bytes": Metric("gauge"),
    "longspan_spans_exported_total": Metric("counter"),
    "longspan_spans_dropped_total": Metric("counter"),
    "longspan_tracing_enabled": Metric("gauge"),
}
# Of prometheus_client's collector of the process.
PROCESS: Mapping[str, Metric] = {
    "process_cpu_seconds_total": Metric("counter"),
    "process_max_fds": Metric("gauge"),
    "process_open_fds": Metric("gauge"),
    "process_resident_memory_bytes": Metric("gauge"),
    "process_start_time_seconds": Metric("gauge"),
}
# Of Prometheus and of the kubelet.
OTHERS: Mapping[str, Metric] = {
    "up": Metric("gauge"),
    "ALERTS": Metric("gauge", {"alertname": None, "alertstate": _of("pending", "firing")}),
    "kubelet_volume_stats_available_bytes": Metric("gauge", {"persistentvolumeclaim": None}),
    "kubelet_volume_stats_capacity_bytes": Metric("gauge", {"persistentvolumeclaim": None}),
}
# What a target's series have besides.
TARGET_LABELS = frozenset({"job", "instance", "namespace", "pod"})
# What quantiles are compared with.
BOUNDS: Mapping[str, float] = {
    "longspan_time_per_output_token_seconds": 0.5,
    "longspan_request_duration_seconds": 0.5,
    "longspan_batch_wait_seconds": 0.1,
    "longspan_event_loop_lag_seconds": 0.1,
}
