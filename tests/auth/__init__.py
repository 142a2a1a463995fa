"""Who is let in, and as whom."""
