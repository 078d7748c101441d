"""Calls of a kernel."""
