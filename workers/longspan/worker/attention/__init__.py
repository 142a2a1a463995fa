"""Paged attention: one contract, a naive reference, and a backend for each kind of machine."""
