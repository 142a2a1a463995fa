"""Selectors: which pages of a document a query needs, one file each."""
