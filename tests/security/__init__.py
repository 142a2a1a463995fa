"""What an attacker or a neighbour must not be able to do."""
