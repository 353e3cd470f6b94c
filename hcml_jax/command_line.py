"""What commands that take a config share."""

import sys

from absl import app


def parse(argv: list[str]) -> list[str]:
    """Parses flags; a mistyped config field, too, ends in a message without a traceback."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:
        # str() quotes and escapes what a KeyError says; the config library raises AttributeError(KeyError(...)), too.
        inner = error.args[0] if error.args and isinstance(error.args[0], KeyError) else error
        told = ". ".join(str(inner.args[0] if inner.args else inner).splitlines())
        kind = "no such field" if told.startswith("'") else type(error).__name__
        sys.exit(f"ConfigError: {kind}: {told}")
    except (TypeError, ValueError, OSError) as error:
        sys.exit(f"ConfigError: {error}")
