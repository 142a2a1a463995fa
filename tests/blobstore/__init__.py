"""The store of blobs: real files, real processes, real disks that are full."""
