from typing import Any

# Any name is a dimension: Any, as a value and as a type.
def __getattr__(name: str) -> Any: ...
