from typing import Any

# Every name is Any, as a value and as a type: the text of a kernel is checked by nsalang, not by Python's rules.
def __getattr__(name: str) -> Any: ...
