"""Text generation: many sequences, prefilled and decoded together a step at a time."""
