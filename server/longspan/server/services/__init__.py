"""gRPC in, domain calls out: translators only."""
