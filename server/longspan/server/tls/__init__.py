"""TLS of the API port."""
