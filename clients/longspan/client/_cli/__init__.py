"""The command line; imported by ``longspan.client.__main__`` alone."""
