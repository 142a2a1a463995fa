"""Spans of requests: what happened when, without a word of what was said."""
