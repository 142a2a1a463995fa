"""Decoding, tokenising and cutting of text, against naive references."""
