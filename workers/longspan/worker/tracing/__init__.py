"""Spans of what a worker computes, below those of the requests that it computes it for."""
