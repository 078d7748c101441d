"""Sizes, strides and memory at a launch."""
