"""The version of nsalang."""

VERSION = "0.1.0"
