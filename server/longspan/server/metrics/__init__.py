"""What the server counts and measures, for Prometheus; no content of any document is in it."""
