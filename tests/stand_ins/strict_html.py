"""Reads a page as strictly as no browser would."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img"}


class Parsed(HTMLParser):
    """Checks that all tags are closed in order, and collects what the page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
