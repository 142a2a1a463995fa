"""Receiving one document: the state machine, the spool file, the session."""
