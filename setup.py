"""What pyproject.toml cannot say, since it depends on where the project lives: its addresses, and the README for an index.

FASTNET_PROJECT_URL is the one place where that is set, for example https://host/owner/repository; the release workflow
sets it to the repository it runs in. Pages of a package index show no pictures and follow no links that are relative to a
repository: with the address known they are made absolute, at the tag of this version; without it they become plain text.
"""
import os
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
URL = os.environ.get("FASTNET_PROJECT_URL", "").rstrip("/")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def version() -> str:
    """Of ``fastnet/_version.py``, without importing it."""
    return re.search(r'__version__ = "([^"]+)"', (ROOT / "fastnet" / "_version.py").read_text()).group(1)


def readme(text: str, url: str, tag: str) -> str:
    """A README of the repository as a page that stands elsewhere."""

    def absolute(link: re.Match) -> str:
        picture, title, target = link.groups()
        if url:
            return f"{picture}[{title}]({url}/{'raw' if picture else 'blob'}/{tag}/{target})"
        return f"*{title}*" if picture else title

    return LINK.sub(absolute, text)


def urls(url: str) -> dict[str, str]:
    """What an index page lists beside the text."""
    if not url:
        return {}
    return {"Source": url, "Issues": f"{url}/issues", "Changelog": f"{url}/blob/main/CHANGELOG.md"}


if __name__ == "__main__":  # as every build runs it
    setup(long_description=readme((ROOT / "README.md").read_text(encoding="utf-8"), URL, f"v{version()}"),
          long_description_content_type="text/markdown", project_urls=urls(URL))
