"""Whether the code that runs does what the IR says: for each tensor and block the elements that it writes are the IR's, and it reads no others.

A proof is about the IR; what a backend's own passes make of the text is not proved. Here the code is run, or evaluated, on small launches, and its
accesses are compared with the interpreter's."""
