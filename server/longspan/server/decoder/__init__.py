"""Answers that a decoder model writes: prompts, sequences on workers, quotations checked."""
