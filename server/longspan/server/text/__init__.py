"""From bytes to passages: exact under any chunking, linear in the length."""
