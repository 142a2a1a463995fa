"""Passages and vectors of one document: built while it arrives, kept on disk."""
