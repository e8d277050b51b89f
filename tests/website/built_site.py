"""The built site, in a browser: `make site-test`.

Its name keeps it out of `make test`, which does not pay for the build.
"""

import functools
import http.server
import json
import re
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from chromium import started
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from website import ROOT, citing

SITE = ROOT / "site"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
# One of each kind.
SHOWN = [
    "index.html",
    "walks.html",
    "details.html",
    "pitfalls/index.html",
    "pitfalls/mean-of-batches.html",
    "readme.html",
    "coverage.html",
    "check.html",
    "api.html",
    "citing.html",
    "notebooks/3_ten_mistakes.html",
    "ko/notebooks/1_fit_and_loop.html",
    "source/index.html",
    "source/manual_loop/steps.py.html",
    "walks/lesson.html",
    "walks/mean_of_batches.html",
]
PHONE, DESKTOP = (390, 844), (1280, 900)
AXE = Path(sys.prefix) / "npm" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


def test_the_site_is_there():
    assert "index.html" in PAGES
    assert set(SHOWN) <= set(PAGES)


# Files ----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page names: anchors, links, what it loads, and its figures."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded, self.figures = set(), [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag in ("img", "script", "iframe", "source", "video") and attrs.get("src"):
            self.loaded.append(attrs["src"])
        if tag == "link" and attrs.get("href") and attrs.get("rel") != "canonical":
            self.loaded.append(attrs["href"])
        if tag == "img":
            self.figures.append(attrs)


@functools.cache
def read(path):
    return Page(path.read_text(encoding="utf-8"))


def broken(page, folder):
    """Links of a page to files and anchors that are not in the folder."""
    found = read(folder / page)
    for link in [*found.links, *found.loaded]:
        target, anchor = urldefrag(link)
        if urlsplit(target).scheme:
            continue
        file = folder / unquote(urljoin(page, target))
        if file.is_dir():
            file /= "index.html"
        there = file.is_file()
        if there and anchor and file.suffix == ".html":
            there = unquote(anchor) in read(file).anchors
        if not there:
            yield link


@pytest.mark.parametrize("page", PAGES)
def test_no_link_is_broken(page):
    if page == "404.html":
        pytest.skip("its links are for a server's root")
    assert sorted(set(broken(page, SITE))) == []


def test_a_broken_link_is_noticed(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html">b</a><a href="#c">c</a><a id="d" href="#d">d</a>'
    )
    assert list(broken("a.html", tmp_path)) == ["b.html", "#c"]


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_loaded_from_elsewhere(page):
    outside = [url for url in read(SITE / page).loaded if urlsplit(url).netloc]
    assert outside == []


@pytest.mark.parametrize("page", PAGES)
def test_each_figure_says_what_it_shows(page):
    for figure in read(SITE / page).figures:
        assert len(figure.get("alt", "").split()) >= 4, figure


def test_each_pitfall_has_its_figure():
    pages = [page for page in PAGES if re.match(r"pitfalls/(?!index)", page)]
    assert len(pages) > 50
    assert all(len(read(SITE / page).figures) == 1 for page in pages)


def test_each_detail_has_its_anchor_and_its_lines():
    text = (SITE / "details.html").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r'<h3 id="detail-(\d+)"', text)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 80
    assert text.count("Apache-2.0") == len(numbers)


def test_the_citation_is_that_of_the_file():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    page = re.sub(r"<[^>]+>", "", (SITE / "citing.html").read_text(encoding="utf-8"))
    assert "@software{fit-unfolded," in page
    entry = citing.bibtex(citing.yaml.safe_load(text))
    for line in re.findall(r"(?m)^(?:title|version|license): (.+)$", text):
        assert line.strip('"') in entry
    fields = set(re.findall(r"(?m)^  (\w+) ", entry))
    optional = {"doi": "doi:", "url": "url:", "year": "date-released:"}
    for field, key in optional.items():
        assert (field in fields) == (key in text)


def test_people_and_addresses_of_a_citation():
    entry = citing.bibtex(
        {
            "title": "A: b",
            "authors": [{"family-names": "F", "given-names": "G"}, {"name": "The H"}],
            "repository-code": "https://example.org",
            "date-released": "2026-11-24",
        }
    )
    assert "{F, G and {The H}}" in entry
    assert "url     = {https://example.org}" in entry
    assert "year    = {2026}" in entry


# Browser --------------------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    """The site on a server of this machine."""
    handler = functools.partial(Handler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    with started() as browser:
        yield browser


class Reader:
    """A reader in front of a page."""

    def __init__(self, browser, address):
        self.browser, self.address = browser, address

    def open(self, page, size=DESKTOP, scheme="light", media=""):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        command = self.browser.execute_cdp_cmd
        command("Emulation.setEmulatedMedia", {"media": media, "features": features})
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        command("Emulation.setDeviceMetricsOverride", metrics)
        self.requests(), self.errors()
        self.browser.get("about:blank")
        self.browser.get(page if "://" in page else self.address + page)

    def requests(self):
        """The addresses asked for since the last call."""
        messages = [
            json.loads(e["message"])["message"] for e in self.browser.get_log("performance")
        ]
        sent = [m for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [m["params"]["request"]["url"] for m in sent]

    def errors(self):
        """What the console has told since the last call, but for hints."""
        entries = self.browser.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def find(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def press(self, *keys):
        ActionChains(self.browser).send_keys(*keys).perform()

    def until(self, condition, seconds=10):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, condition
            time.sleep(0.05)
        return found


@pytest.fixture
def reader(chromium, address):
    return Reader(chromium, address)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_stands_alone_and_fits_a_phone(reader, page):
    reader.open(page, PHONE)
    outside = [url for url in reader.requests() if not url.startswith((reader.address, "data:"))]
    assert [url for url in outside if not url.startswith(("about:", "chrome"))] == []
    assert reader.errors() == []
    assert reader.script("return document.documentElement.scrollWidth") <= PHONE[0]


@pytest.mark.parametrize("page", [page for page in SHOWN if not page.startswith("walks/")])
def test_a_phone_shows_the_whole_title_in_the_header(reader, page):
    title = "document.querySelector('.md-header__topic + .md-header__topic .md-ellipsis')"
    cut = f"const e = {title}; return e.scrollHeight > e.clientHeight"
    reader.open(page, PHONE)
    assert not reader.script(cut)
    reader.script(f"{title}.textContent += ' and more words than two lines can hold'.repeat(2)")
    assert reader.script(cut)


def test_a_request_to_the_outside_is_noticed(reader, tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<img src="http://elsewhere.invalid/x.png"><script>throw Error("no")</script>')
    reader.open(page.as_uri())
    reader.until(lambda: "http://elsewhere.invalid/x.png" in reader.requests())
    assert any("no" in message for message in reader.errors())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", SHOWN)
def test_contrast_names_and_roles(reader, page, scheme):
    if not AXE.is_file():
        pytest.skip("no axe-core: npm was not found when the site's tools were installed")
    violations = []
    for size in (DESKTOP, PHONE):
        reader.open(page, size, scheme)
        reader.script(AXE.read_text(encoding="utf-8"))
        found = reader.browser.execute_async_script(
            "const [rules, done] = arguments;"
            "axe.run(document, {runOnly: rules, resultTypes: ['violations']})"
            ".then((found) => done(found.violations), (error) => done(String(error)))",
            RULES,
        )
        assert isinstance(found, list), found
        violations += [
            f"{size[0]} pixels: {rule['id']}: {node['html'][:120]}: {node['failureSummary']}"
            for rule in found
            for node in rule["nodes"][:3]
        ]
    assert violations == []


def test_weak_contrast_is_noticed(reader, tmp_path):
    if not AXE.is_file():
        pytest.skip("no axe-core: npm was not found when the site's tools were installed")
    page = tmp_path / "page.html"
    page.write_text('<html lang="en"><title>t</title><main style="color:#aaa">words</main>')
    reader.open(page.as_uri())
    reader.script(AXE.read_text(encoding="utf-8"))
    found = reader.browser.execute_async_script(
        "const [rules, done] = arguments;"
        "axe.run(document, {runOnly: rules}).then((found) => done(found.violations))",
        RULES,
    )
    assert [rule["id"] for rule in found] == ["color-contrast"]


def test_the_keyboard_alone_leads_through_the_start_page(reader):
    reader.open("index.html")
    reader.press(Keys.TAB)
    active = "return document.activeElement"
    skip = reader.script(active)
    reader.until(lambda: skip.text.lower() == "skip to content")
    reader.press(Keys.ENTER)
    walked = []
    for _ in range(60):
        reader.press(Keys.TAB)
        link = reader.script(active)
        outline = reader.script("return getComputedStyle(arguments[0]).outlineStyle", link)
        assert outline != "none", link.get_attribute("outerHTML")[:100]
        walked.append(link.get_attribute("href"))
        if walked[-1] and walked[-1].endswith("#batches"):
            break
    assert walked[-1].endswith("#batches")
    assert any(link and link.endswith("walks/lesson.html") for link in walked)
    reader.press(Keys.ENTER)
    row = reader.until(lambda: reader.script("return document.querySelector('.row:target')"))
    assert "def run(step, x, y, order):" in row.text


@pytest.mark.parametrize("place", ["server", "folder"])
def test_search_finds_a_detail(reader, place):
    page = "index.html" if place == "server" else (SITE / "index.html").as_uri()
    reader.open(page)
    # the search is in a shadow tree
    opened = "const root = document.activeElement?.shadowRoot; return root?.activeElement?.tagName"
    control_k = ActionChains(reader.browser).key_down(Keys.CONTROL).send_keys("k")
    control_k.key_up(Keys.CONTROL).perform()
    reader.until(lambda: reader.script(opened) == "INPUT")
    reader.press("replayed on every iteration")
    text = "return document.activeElement.shadowRoot?.textContent ?? ''"
    reader.until(lambda: "first two batches are replayed" in reader.script(text))
    assert [
        url for url in reader.requests() if urlsplit(url).netloc and "127.0.0.1" not in url
    ] == []


def test_the_walk_is_live(reader):
    reader.open("walks/lesson.html")
    place = "return document.getElementById('count').textContent"
    before = reader.script(place)
    reader.find("#next").click()
    assert reader.script(place) != before


def test_paper_has_the_text_alone(reader):
    reader.open("details.html", media="print")
    for selector in (".md-header", ".md-sidebar--primary", ".md-footer"):
        assert not reader.find(selector).is_displayed()
    assert reader.find("#detail-12").is_displayed()


def test_both_programs_stand_side_by_side(reader):
    places = (
        "const [a, b] = document.querySelectorAll('.row#data > div');"
        "return [a.getBoundingClientRect().top, b.getBoundingClientRect().top]"
    )
    reader.open("index.html")
    left, right = reader.script(places)
    assert left == right
    reader.open("index.html", PHONE)
    left, right = reader.script(places)
    assert left < right
