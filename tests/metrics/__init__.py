"""What is counted is true, named well, and described."""
