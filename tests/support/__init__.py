"""What several tests need: data, processes, accounting."""
