"""Answers that were given before, kept for requests that are equal."""
