"""The project's pages, and what is in them: fenced blocks, commands, headings, links."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repository import REPOSITORY

FOLDERS = ("benchmarks", "components", "docs", "examples", "images", "manifests", "notebooks")
PAGES = sorted([*REPOSITORY.glob("*.md"), *(page for name in FOLDERS for page in REPOSITORY.glob(f"{name}/**/*.md"))])
FENCE = re.compile(r"^([ \t]*)```([^\n`]*)\n(.*?)^\1```[ \t]*$", re.MULTILINE | re.DOTALL)
# A block without a language may be anything, a tree of files, say. These words begin a command there.
COMMAND = re.compile(r"(\w+=\S+ )*(make|python|kfp|curl|pip|kubectl|docker|helm|kind|k3d|gcloud|aws)\b")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Where it is.
        line: Its first line there.
        language: First word after the fence.
        marks: The words after that.
        text: What is in it.
    """

    page: Path
    line: int
    language: str
    marks: frozenset[str]
    text: str

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def commands() -> list[tuple[Block, str]]:
    """Every command with its block: in one line, without prompt, comment and the environment's folder."""
    found = [(block, command) for block in blocks("", "bash", "sh", "shell", "console") for command in _commands(block)]
    return [(block, command) for block, command in found if block.language or COMMAND.match(command)]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The names by which GitHub lets links find a page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        language, *marks = match[2].split() or [""]
        yield Block(page, text.count("\n", 0, match.start()) + 1, language, frozenset(marks), textwrap.dedent(match[3]))


def _commands(block: Block) -> Iterator[str]:
    pending = ""
    for line in block.text.splitlines():
        pending += line.removeprefix("$ ")
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quotation that goes on in the next line
            pending += "\n"
            continue
        if words:
            bare = re.sub(r"(^|\s)#.*$", "", pending)
            yield " ".join(bare.split()).removesuffix(" &").replace(".venv/bin/", "")
        pending = ""
