"""Builds the site into `site/`: `python -m website`."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from website import ROOT, citing, details, pitfalls, start, walks
from website.navigation import KOREAN, files, navigation, toml
from website.pages import Pages

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "site"
SITE = ROOT / "site"
# What the generator adds to pages opened from a folder, and what stands in its place.
ELSEWHERE = re.compile(r'<script src="https://unpkg\.com/iframe-worker/shim"[^>]*></script>')

# The anchor of a line of code, and the link of its number, which the stylesheet writes.
CODE_LINE = re.compile(r'<a id="(__codelineno-\d+-\d+)" name="[^"]*" href="[^"]*">')
LINE_NUMBER = re.compile(r'<a href="#(__codelineno-\d+)-(\d+)">(?=<span class="linenos")')


def main() -> None:
    """Stages the pages, has them rendered, and puts the result in the place of the last site."""
    shutil.rmtree(BUILD, ignore_errors=True)
    pages = Pages(BUILD / "pages")
    render(stage(pages))
    for page in (BUILD / "out").rglob("*.html"):
        finish(page)
    if (BUILD / "out" / "ko").is_dir():  # the language switch asks for it
        shutil.copy(BUILD / "out" / "sitemap.xml", BUILD / "out" / "ko")
    shutil.rmtree(SITE, ignore_errors=True)
    (BUILD / "out").rename(SITE)
    print(f"Written: {SITE.relative_to(ROOT)}/index.html")


def stage(pages: Pages) -> list[Any]:
    """Writes all pages, as Markdown, and what they link to; returns the site's `nav`."""
    numbers = details.by_pitfall((ROOT / details.PAGE).read_text(encoding="utf-8"))
    start.write(pages)
    walks.write(pages)
    symptoms = pitfalls.write(pages, numbers)
    for file in files(ROOT):
        if file.endswith("details.md"):
            details.write(pages, file)
        else:
            pages.stage(file)
    pages.write("citing.md", citing.page())
    pages.write("api.md", (HERE / "api.md").read_text(encoding="utf-8"))
    for asset in sorted((HERE / "assets").iterdir()):
        pages.copy(asset, f"assets/{asset.name}")
    pages.finish()
    return navigation(ROOT, symptoms)


def render(nav: list[Any]) -> None:
    """Runs the generator; its warnings are errors."""
    settings = {"nav": nav, "docs_dir": "pages", "site_dir": "out"}
    lines = [f"{key} = {toml(value)}" for key, value in settings.items()]
    text = (HERE / "zensical.toml").read_text(encoding="utf-8")
    text = text.replace("[project]\n", "\n".join(["[project]", *lines, ""]), 1)
    text = text.replace(
        "[project.plugins.mkdocstrings.handlers.python.options]",
        f"[project.plugins.mkdocstrings.handlers.python]\npaths = [{toml(str(ROOT))}]\n\n"
        "[project.plugins.mkdocstrings.handlers.python.options]",
    )
    korean = next((item[KOREAN] for item in nav if KOREAN in item), None)
    if korean:
        languages = [
            {"name": "English", "link": "index.html", "lang": "en"},
            {"name": KOREAN, "link": re.sub(r"\.md$", ".html", korean[0]), "lang": "ko"},
        ]
        text += f"\n[project.extra]\nalternate = {toml(languages)}\n"
    (BUILD / "zensical.toml").write_text(text, encoding="utf-8")
    command = Path(sysconfig.get_path("scripts")) / "zensical"
    environment = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run([command, "build", "--strict"], cwd=BUILD, env=environment, check=False)
    if done.returncode:
        sys.exit(f"zensical: exit status {done.returncode}")


def finish(page: Path) -> None:
    """Mends what the generator leaves to be mended in a page.

    No script of another server; lines of code that are no stop of the Tab key; the language of the
    Korean pages.
    """
    text = page.read_text(encoding="utf-8")
    folder = page.relative_to(BUILD / "out").parent
    up = os.path.relpath("assets/file-worker.js", folder)
    new = ELSEWHERE.sub(f'<script src="{up}"></script>', text)
    new = CODE_LINE.sub(r'<a id="\1">', new)
    new = LINE_NUMBER.sub(r'<a href="#\1-\2" tabindex="-1" aria-label="Line \2">', new)
    if folder.parts[:1] == ("ko",):
        new = new.replace('<html lang="en"', '<html lang="ko"', 1)
    if new != text:
        page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
