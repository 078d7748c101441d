"""``python -m nsalang`` is the command ``nsalang``."""

from nsalang.commands.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
