"""A syntax tree to the typed IR."""
