"""A small trained decoder on which attention policies differ: records hidden in a long document."""
