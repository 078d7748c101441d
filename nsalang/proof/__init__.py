"""A verdict on each obligation of a kernel."""
