"""The encoder engine: texts in, unit vectors out."""
