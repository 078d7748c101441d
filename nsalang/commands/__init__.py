"""The sub-commands of ``nsalang``: one module each, with one click command named ``command``, imported when it is asked for."""
