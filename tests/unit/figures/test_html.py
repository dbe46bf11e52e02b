import pandas as pd

from hessketch.figures.html import table_page


def test_a_table_page_shows_every_cell_and_escapes_what_could_be_markup():
    page = table_page(pd.DataFrame({"network": ["<script>", "vgg11"], "rate": [0.1, 0.05]}), "Table 1 & more")
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "Table 1 &amp; more" in page
    assert page.count("<tr") == 3 and "0.05" in page
    assert "http" not in page
