"""Links between the pages lead somewhere, and pictures need nothing from elsewhere."""

import re
from pathlib import Path

import pytest

from documentation.pages import PAGES, REPOSITORY, anchors, name, prose

PICTURES = sorted((REPOSITORY / "docs" / "images").glob("*.svg"))


@pytest.mark.parametrize("page", PAGES, ids=map(name, PAGES))
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_picture_stands_alone(picture: Path) -> None:
    assert not re.search(r'(href|src)\s*=\s*"(?!#)|@import|url\((?!#)|<script', picture.read_text())
