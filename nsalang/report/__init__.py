"""What people read of a kernel."""
