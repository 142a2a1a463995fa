"""What outlives the process: documents and open uploads."""
