"""One report for all tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from synthetic_results import make_results

from hessketch.report.page import Sources, build_report


@dataclass(frozen=True)
class Reported:
    sources: Sources
    page: str
    file: Path


@pytest.fixture(scope="session")
def reported(tmp_path_factory) -> Reported:
    folder = tmp_path_factory.mktemp("reported")
    sources = make_results(folder)
    page = build_report(sources)
    (folder / "report.html").write_text(page)
    return Reported(sources, page, folder / "report.html")
