"""A kernel to compiled code, kept in a cache."""
