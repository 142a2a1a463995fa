"""Request traces of a real service, replayed against the code that caches pages."""
