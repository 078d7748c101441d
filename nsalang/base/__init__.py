"""What all packages speak of: sources and diagnostics, dtypes, targets, constants."""
