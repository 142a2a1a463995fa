"""Log lines for people and for programs, with the ids of the call that they belong to."""
