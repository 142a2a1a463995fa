"""Sends spans to a collector. Server and workers share it; nothing here is imported unless
tracing is on."""
