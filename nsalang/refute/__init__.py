"""Counterexamples, replayed, and what would mend a kernel."""
