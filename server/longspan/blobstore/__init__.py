"""Immutable blobs on an SSD, found by 32-byte keys: bounded, checksummed, shared by processes."""
