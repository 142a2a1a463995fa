"""Decoders of transformers, unmodified: their files, their sizes, their loading."""
