"""A table as a web page of its own, in which no script runs."""

from html import escape

import pandas as pd

_STYLE = """body { font-family: sans-serif; margin: 1.5rem; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { border-bottom: 1px solid #ccc; padding: 0.3rem 0.7rem; text-align: left; white-space: nowrap; }
thead th { border-bottom: 2px solid #333; }"""


_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # what the browser may load and run: the style below


def table_page(table: pd.DataFrame, title: str) -> str:
    """A self-contained HTML page that shows the rows of a table; names and values are escaped."""
    rows = table.to_html(index=False, border=0, escape=True)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n{rows}\n</body>\n</html>\n"
    )
