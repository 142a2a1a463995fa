"""Immutable blobs on an SSD, found by 32-byte keys: bounded, checksummed, shared by processes.

Imports neither torch nor asyncio nor anything of the server or the worker.
"""
