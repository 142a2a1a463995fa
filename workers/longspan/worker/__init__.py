"""The worker process: one model replica behind one bidirectional stream."""
