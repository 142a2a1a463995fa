"""Records as aiocache stores them: protobuf, where its own serializers offer pickle."""

from __future__ import annotations

from aiocache.serializers import BaseSerializer

from longspan.server.results.record import BadRecord, Record, decode, encode


class RecordSerializer(BaseSerializer):  # type: ignore[misc]  # aiocache has no types
    """Bytes that are no record are None: to the cache they are not there."""

    DEFAULT_ENCODING = None

    def dumps(self, value: Record) -> bytes:
        """A record as bytes."""
        return encode(value)

    def loads(self, value: object) -> Record | None:
        """The record, if it is one."""
        if not isinstance(value, bytes):
            return None
        try:
            return decode(value)
        except BadRecord:
            return None
