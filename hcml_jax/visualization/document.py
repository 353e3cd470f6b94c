"""HTML documents of one file, which need no network."""

import html

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1100px; padding: 1rem; color: #1b1f24;
  overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; }
"""


def document(title: str, body: str, style: str = "") -> str:
    """A complete document around `body`, readable on phones too; `style` is added to the common style."""
    view = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    icon = '<link rel="icon" href="data:,">'  # browsers ask for one
    head = f"<head>{view}{icon}<title>{html.escape(title)}</title><style>{STYLE}{style}</style></head>"
    return f"<!doctype html><html lang=en>{head}<body>{body}</body></html>\n"
