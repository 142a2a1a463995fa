"""The tables of the index."""

from __future__ import annotations

# In `user_version`; an index of another number is built again.
VERSION = 1

# States of a blob.
PENDING, READY, CANCELLED = 0, 1, 2

# `totals` and `tenants` are kept by triggers, so that no statement can forget them.
TABLES = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value);
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    subject TEXT NOT NULL,
    label TEXT NOT NULL,
    parent BLOB,
    cost_s REAL NOT NULL,
    depth INTEGER NOT NULL,
    used_s REAL NOT NULL,
    hits INTEGER NOT NULL,
    rank REAL NOT NULL,
    ticket TEXT
);
CREATE INDEX ranks ON blobs (rank) WHERE state = {READY};
CREATE INDEX tenant_ranks ON blobs (tenant, rank) WHERE state = {READY};
CREATE INDEX subjects ON blobs (tenant, subject);
CREATE UNIQUE INDEX tickets ON blobs (ticket) WHERE ticket IS NOT NULL;
CREATE TABLE changes (seq INTEGER PRIMARY KEY, key BLOB NOT NULL, added INTEGER NOT NULL);
CREATE TABLE totals (entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE tenants (
    tenant TEXT PRIMARY KEY, entries INTEGER NOT NULL, bytes INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER added AFTER INSERT ON blobs BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + new.bytes;
    INSERT INTO tenants VALUES (new.tenant, 1, new.bytes)
        ON CONFLICT DO UPDATE SET entries = entries + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER removed AFTER DELETE ON blobs BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - old.bytes;
    UPDATE tenants SET entries = entries - 1, bytes = bytes - old.bytes WHERE tenant = old.tenant;
    DELETE FROM tenants WHERE tenant = old.tenant AND entries = 0;
END;
PRAGMA user_version = {VERSION};
"""
