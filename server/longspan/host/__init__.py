"""What the machine says of itself. Server and workers share it."""
