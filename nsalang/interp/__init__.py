"""What a kernel means: the IR, run."""
