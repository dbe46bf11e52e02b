from html.parser import HTMLParser

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from hessketch.figures.html import table_page


def test_a_table_page_shows_every_cell_and_escapes_what_could_be_markup():
    page = table_page(pd.DataFrame({"network": ["<script>", "vgg11"], "rate": [0.1, 0.05]}), "Table 1 & more")
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "Table 1 &amp; more" in page
    assert page.count("<tr") == 3 and "0.05" in page
    assert "http:" not in page and "https:" not in page


@given(st.text(), st.text(min_size=1), st.text())
def test_no_text_becomes_markup_whether_title_column_or_cell(title, column, cell):
    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.seen = set()

        def handle_starttag(self, tag, attributes):
            self.seen |= {tag, *(name for name, _ in attributes)}

    def tags(*texts):
        parser, (of_title, of_column, of_cell) = Tags(), texts
        parser.feed(table_page(pd.DataFrame({of_column: [of_cell]}), of_title))
        return parser.seen

    marked = [f"<script>{text}</script><img src=x onerror=y>" for text in (title, column, cell)]
    assert tags(*marked) == tags("a", "b", "c")
