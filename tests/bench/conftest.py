"""A browser for the tests of reports' pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import Page, open_browser


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser() as opened:
        yield opened
