"""Who is served next: the fair queue, and the dispatcher that feeds the workers from it."""
