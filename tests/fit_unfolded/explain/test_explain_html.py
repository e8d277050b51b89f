"""The HTML page of `explain`: what it holds, and how it behaves in a real browser."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import keras
import pytest
from chromium import started
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from fit_unfolded import workloads
from fit_unfolded.common import keras_source
from fit_unfolded.common.errors import InputError
from fit_unfolded.explain import columns, excerpts, explain, html
from fit_unfolded.explain.events import Decision, Difference, Event, Explanation, Line, Pair

VOID = {"meta", "link", "input", "wbr"}
KERAS_SOURCE = f"https://github.com/keras-team/keras/blob/v{keras.__version__}/"
PHONE, DESKTOP = (390, 844), (1280, 800)


class Page(HTMLParser):
    """The elements of a page; raises where a tag is not closed or closed twice."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.text = ""
        self._open = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert tag == self._open.pop(), f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.text += data

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two files of 200 lines, one for each side: a function to step through."""
    directory = tmp_path_factory.mktemp("sources")
    for package in ("keras", "manual_loop"):
        lines = [f"    {package}_{n} = f'</script> & {{{n} < 5}}'" for n in range(2, 201)]
        (directory / f"{package}.py").write_text("\n".join([f"def {package}():", *lines]))
    return directory


@pytest.fixture(scope="module")
def explanation(sources):
    """Two epochs of two batches and one validation batch: 18 events, 2 decisions."""

    def lines(number):
        return [
            Line(f"{package}/trainer.py", number, f"{package}.step", str(sources / f"{package}.py"))
            for package in ("keras", "manual_loop")
        ]

    events = []

    def add(number, source, call, detail="", phase="", epoch=None, batch=None):
        fit, loop = lines(number)
        event = Event(source, call, detail, phase, epoch, batch, fit)
        events.append(Pair(event, fit, loop, (fit, *lines(10)[:1]), (loop,)))

    add(10, "callback", "on_train_begin")
    for epoch in range(2):
        add(20, "callback", "on_epoch_begin", f"epoch {epoch}", "train", epoch)
        for batch in range(2):
            add(100, "layer", "dense.call", "x [16, 64], training=True", "train", epoch, batch)
            add(102, "loss", "mse.call", f"<b>0.5{batch}</b> & done", "train", epoch, batch)
        add(150, "callback", "on_test_begin", "", "validation", epoch)
        add(190, "layer", "dense.call", "x [16, 64], training=False", "validation", epoch, 0)
        add(200, "callback", "on_epoch_end", f"epoch {epoch}", "train", epoch)
    add(11, "callback", "on_train_end")
    decisions = [
        Decision('optimizer="adam"', "Adam", "a name is looked up", *lines(40)),
        Decision('metrics="acc"', "SparseCategoricalAccuracy", "y is [batch, 1]", *lines(60)),
    ]
    return Explanation("tiny", "A <tiny> model", "3.15.1", "2.21.0", decisions, events)


@pytest.fixture(scope="module")
def real():
    workload = workloads.get("lesson")
    return explain(workload, workload.load(0, None))


def test_each_event_and_decision_has_an_anchor_and_its_lines(explanation):
    page = Page(html.page(explanation))
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert [i for i in ids if re.fullmatch(r"[de]\d+", i)] == [
        "d1",
        "d2",
        *(f"e{number}" for number in range(1, len(explanation.events) + 1)),
    ]
    for name in ("data-fit", "data-loop", "data-fit-stack", "data-loop-stack"):
        assert len(page.attributes(name)) == len(explanation.events) + 2
        assert set(page.attributes(name)) <= set(ids)
    for href in page.attributes("href"):
        assert href == "data:," or href.removeprefix("#") in ids or href.startswith(KERAS_SOURCE)
    assert set(page.attributes("data-about")) <= set(ids)


def test_everything_is_escaped(explanation):
    text = html.page(explanation)
    page = Page(text)
    assert text.count("</script>") == 1
    assert "<b>0.5" not in text
    assert "<tiny>" not in text
    for shown in ("<b>0.50</b> & done", "A <tiny> model", "keras_100 = f'</script> & {100 < 5}'"):
        assert shown in page.text


def test_the_page_names_nothing_outside_itself(explanation):
    text = html.page(explanation)
    links = re.findall(r'<a [^>]*href="https:[^"]*"', text)
    assert all(KERAS_SOURCE in link for link in links)
    for link in links:  # a link asks for nothing until someone follows it
        text = text.replace(link, "")
    assert not re.search(r"https?:|//\w|@import|url\(|\bsrc=|fetch\(|XMLHttp", text)
    assert "default-src 'none'" in text


def test_source_is_shown_once_and_only_around_the_events(explanation):
    text = html.page(explanation)
    rows = re.findall(r"<(?:b|a href=\"#[de]\d+\")>(\d+)</(?:b|a)><code", text)
    around = {n for stop in (10, 11, 20, 40, 60, 100, 102, 150, 190, 200) for n in nearby(stop)}
    assert sorted(map(int, rows)) == sorted([*around, *around])


def nearby(line):
    return range(max(1, line - excerpts.CONTEXT), min(200, line + excerpts.CONTEXT) + 1)


def test_a_small_gap_is_shown():
    low, high = 20, 20 + 2 * excerpts.CONTEXT + excerpts.SMALLEST_GAP
    assert excerpts.around([low, high], 200) == {
        *range(low - excerpts.CONTEXT, high + excerpts.CONTEXT + 1)
    }
    assert low + excerpts.CONTEXT + 1 not in excerpts.around([low, high + 1], 200)


def test_where_the_implementations_differ_is_said(explanation):
    assert "implementations differ" not in html.page(explanation)
    event = explanation.events[3].event
    parted = replace(
        explanation,
        events=explanation.events[:3],
        difference=Difference(4, event, None),
    )
    text = Page(html.page(parted)).text
    assert "The implementations differ from event 4 on: fit has mse.call" in text
    assert "the loop has nothing more." in text


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_is_at_least_that_of_wcag_aa(dark):
    palettes = re.findall(r":root \{(.*?)\n *\}", columns._file("page.css"), re.DOTALL)
    colours = {}
    for palette in palettes[: 2 if dark else 1]:
        colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", palette))
    papers = ("paper", "raised", "chosen")
    inks = ("ink", "soft", "callback", "layer", "loss", "metric", "optimizer", "data", "tape")
    code = ("ink", "soft", "fit", "loop", "own", "comment", "string", "number", "keyword")
    pairs = [(ink, paper) for ink in inks for paper in papers]
    pairs += [(ink, "raised") for ink in code]
    lines = ("fit-line", "loop-line", "own-line")
    pairs += [(ink, line) for line in lines for ink in ("ink", *code[6:])]
    pairs += [("soft", "rest"), ("ink", "past"), ("paper", "ink")]
    for ink, paper in pairs:
        assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)


def contrast(a, b):
    """The contrast ratio of WCAG 2: from 1, the same, to 21, black on white."""
    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_directory_is_no_file(explanation, tmp_path):
    with pytest.raises(InputError, match=r"--html: .* is a directory; name a file"):
        html.write(explanation, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--html: cannot write to"):
        html.write(explanation, tmp_path / "file" / "page.html")


def test_a_real_training_fits_the_page(real):
    text = html.page(real)
    page = Page(text)
    assert len(text.encode()) < 500_000
    assert f"e{len(real.events)}" in page.attributes("id")
    assert f"Keras {real.keras_version}" in page.text
    assert "optimizer.apply_gradients(zip(gradients, weights, strict=True))" in page.text
    assert {"TensorFlowTrainer.train_step", "train_step"} <= set(page.attributes("data-function"))


# In a browser


@pytest.fixture(scope="module")
def chromium():
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(explanation, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    html.write(explanation, path)
    return path.as_uri()


class Reader:
    """A reader in front of the page."""

    def __init__(self, browser):
        self.browser = browser

    def open(self, address, size=DESKTOP, scheme="light"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", media="", features=features)
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        self.browser.get("about:blank")  # or a new anchor alone would not load the page afresh
        self.browser.get(address)

    def command(self, name, **parameters):
        self.browser.execute_cdp_cmd(name, parameters)

    def press(self, *keys):
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def click(self, selector):
        self.browser.find_element(By.CSS_SELECTOR, selector).click()

    def ask(self, expression):
        return self.browser.execute_script(f"return {expression}")

    def text(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector).text

    def stands_at(self):
        """Current event, line of each pane, step of the timeline, anchor in the address."""
        event, *lines, step, anchor = self.ask(
            """[
                document.querySelector('.entry > [aria-current]').hash,
                ...[...document.querySelectorAll('.source')].map((pane) => {
                    const line = pane.querySelector('li[aria-current]');
                    const [inner, outer] = [line, pane].map((e) => e.getBoundingClientRect());
                    const seen = inner.top >= outer.top && inner.bottom <= outer.bottom;
                    return seen ? line.querySelector('a').textContent : 'out of sight';
                }),
                document.querySelector('.timeline [aria-current]').ariaLabel,
                location.hash,
            ]"""
        )
        return event, *map(int, lines), step, anchor


@pytest.fixture
def reader(chromium):
    chromium.get_log("browser")
    chromium.get_log("performance")
    yield Reader(chromium)
    assert chromium.get_log("browser") == []
    messages = (
        json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")
    )
    asked = {
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    }
    assert all(url.startswith(("file:", "data:", "about:")) for url in asked)


def test_keys_walk_through_events_and_batches(reader, address):
    reader.open(address)
    assert reader.stands_at() == ("#d1", 40, 40, "Compile", "")
    reader.press("j", "j")
    assert reader.stands_at() == ("#e1", 10, 10, "Before the first epoch", "#e1")
    reader.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert reader.stands_at() == ("#e4", 102, 102, "Epoch 0, batch 0", "#e4")
    assert reader.text("#place") == "Epoch 0, batch 0"
    assert reader.text("#count") == "event 4 of 18"
    reader.press(Keys.ARROW_RIGHT)
    assert reader.stands_at()[0] == "#e5"
    reader.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert reader.stands_at() == ("#e8", 190, 190, "Epoch 0, validation batch 0", "#e8")
    reader.press(Keys.ARROW_LEFT, "k", Keys.ARROW_UP)
    assert reader.stands_at()[0] == "#e5"
    reader.press(*"jjjjjjjjjjjjjjjjjj")
    assert reader.stands_at() == ("#e18", 11, 11, "After the last epoch", "#e18")
    assert reader.ask("document.getElementById('next').disabled")


def test_clicks_walk_and_the_browser_goes_back(reader, address):
    reader.open(f"{address}#e8")
    assert reader.stands_at() == ("#e8", 190, 190, "Epoch 0, validation batch 0", "#e8")
    reader.open(f"{address}#e2")
    reader.click(".repeats .fold")  # the second batch
    reader.click("#e6 > a")
    reader.click("#next")
    reader.click("#next")
    assert reader.stands_at()[0] == "#e8"
    reader.click('.timeline [title="Epoch 1, batch 1"]')
    assert reader.stands_at() == ("#e13", 100, 100, "Epoch 1, batch 1", "#e13")
    reader.click("#loop-0-102")  # a line of source: to the next event that comes from it
    assert reader.stands_at()[0] == "#e14"
    reader.click("#loop-0-102")
    assert reader.stands_at()[0] == "#e4"
    trail = []
    for _ in range(4):
        reader.browser.back()
        trail.append(reader.stands_at()[0])
    assert trail == ["#e14", "#e13", "#e8", "#e6"]
    reader.browser.forward()
    assert reader.stands_at()[0] == "#e8"


def test_search_narrows_the_events(reader, address):
    reader.open(address)
    reader.press("/", *"dense True")
    shown = "[...document.querySelectorAll('.entry:not([hidden])')].map((e) => e.id)"
    assert reader.ask(shown) == ["e3", "e5", "e11", "e13"]
    assert reader.text("#found") == "4 of 20"
    assert reader.stands_at()[0] == "#e3"
    reader.press(Keys.ENTER, Keys.ARROW_DOWN)
    assert reader.stands_at()[0] == "#e11"
    reader.press(*"zz")
    assert reader.ask(shown) == []
    reader.press(Keys.ESCAPE)
    assert len(reader.ask(shown)) == 20
    assert reader.stands_at()[0] == "#e11"
    assert reader.ask("document.activeElement.hash") == "#e11"
    reader.press("/", *"optimizer")
    assert reader.stands_at()[0] == "#d1"
    reader.click('.timeline [title="After the last epoch"]')  # hidden until now
    assert len(reader.ask(shown)) == 20
    assert reader.stands_at()[0] == "#e18"


def test_the_calls_that_led_to_a_line_unfold(reader, address):
    reader.open(f"{address}#e4")
    summary = "keras/trainer.py:102 keras.step"
    assert reader.text("[data-side=fit] details") == summary
    reader.click("[data-side=fit] summary")
    assert reader.text("[data-side=fit] details").splitlines() == [
        summary,
        "keras.step keras/trainer.py:10",
        "keras.step keras/trainer.py:102",
    ]


def test_a_real_page_on_a_phone_and_in_the_dark(reader, real, tmp_path):
    html.write(real, tmp_path / "page.html")
    paper = "getComputedStyle(document.body).backgroundColor"
    papers = []
    for scheme in ("light", "dark"):
        reader.open((tmp_path / "page.html").as_uri(), PHONE, scheme)
        papers.append(reader.ask(paper))
        assert reader.ask("document.documentElement.scrollWidth") == PHONE[0]
        sideways = (
            "[...document.querySelectorAll('.scroll')].map((b) => b.scrollWidth - b.clientWidth)"
        )
        assert reader.ask(sideways) == [0, 0, 0]
        boxes = reader.ask(
            "[...document.querySelectorAll('.column')]"
            ".map((column) => column.getBoundingClientRect().toJSON())"
        )
        assert all(box["left"] == 0 and box["width"] == PHONE[0] for box in boxes)
        assert boxes[0]["bottom"] <= boxes[1]["top"] < boxes[1]["bottom"] <= boxes[2]["top"]
    assert papers[0] != papers[1]


@pytest.fixture(scope="module")
def real_address(real, tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "page.html"
    html.write(real, path, details="../details/")
    return path.as_uri()


def test_a_condition_over_several_lines_is_shown_whole(reader, real, real_address):
    number, decision = next(
        (number, decision)
        for number, decision in enumerate(real.compile, start=1)
        if decision.argument == "auto_scale_loss=True"
    )
    reader.open(f"{real_address}#d{number}")
    chosen = "[...document.querySelectorAll('[data-side={}] .chosen')].map((e) => e.innerText)"
    first, *rest = reader.ask(chosen.format("fit"))
    assert (first.split("\n")[0], first.split()[-2:]) == (str(decision.fit.number), ["if", "("])
    assert rest[0].endswith("auto_scale_loss")
    assert rest[-1].endswith("):")
    assert len(reader.ask(chosen.format("loop"))) == 1  # of a call, the argument
    reader.press("k", "k")
    assert len(reader.ask(chosen.format("fit"))) == 1
    assert "if ( auto_scale_loss and self." in html.page(real)  # on paper


SHOWN = "[...document.querySelectorAll('{}')].filter((e) => e.offsetHeight > 0)"


def test_calls_in_a_row_at_the_same_lines_are_folded(reader, real_address):
    reader.open(f"{real_address}#e9")
    shown = f"{SHOWN.format('.entry')}.map((e) => e.id)"
    assert reader.text("#e9 .fold") == "2 more at these lines"
    reader.press("j")
    assert reader.stands_at()[0] == "#e12"
    reader.press("k", "o", "j")
    assert reader.stands_at()[0] == "#e10"  # unfolded
    assert {"e10", "e11"} <= set(reader.ask(shown))
    reader.press("o")
    assert reader.stands_at()[0] == "#e9"  # what is folded is no place to be
    assert not {"e10", "e11"} & set(reader.ask(shown))
    reader.click("#e9 > .fold")
    assert {"e10", "e11"} <= set(reader.ask(shown))
    reader.press("/", *"dense_1.bias")  # in a run, in batches that are folded
    assert len(reader.ask(shown)) == 2 * 3
    reader.open(f"{real_address}#e20")  # an address leads into a fold
    assert reader.stands_at()[0] == "#e20"


def test_a_batch_that_repeats_another_unfolds_on_arrival(reader, address):
    reader.open(f"{address}#e4")
    headings = f"{SHOWN.format('.repeats h3')}.map((e) => e.innerText.replace(/\\s+/g, ' '))"
    assert reader.ask(headings)[:2] == [
        "batch 1 · 2 events, as in epoch 0, batch 0",
        "epoch begins · 1 event, as in epoch 0",
    ]
    assert not reader.ask("document.getElementById('e5').offsetHeight")
    reader.press("j")
    assert reader.stands_at()[0] == "#e5"
    assert reader.ask("document.getElementById('e5').offsetHeight")
    reader.press("o")
    assert reader.stands_at()[0] == "#e5"  # the reader may fold where they are
    assert not reader.ask("document.getElementById('e5').offsetHeight")


def test_each_kind_of_event_is_explained_with_its_details(reader, real_address):
    reader.open(f"{real_address}#e16")
    assert reader.text("#e16 .kind") == "tape"
    assert reader.text("#about").startswith("Backpropagation: the tape is read backward")
    link = "document.querySelector('#about a')"
    assert reader.ask(f"{link}.getAttribute('href')") == "../details/#detail-44"
    assert reader.ask(f"{link}.textContent").startswith("Detail 44: Gradients and update are")
    assert reader.text(".start").startswith("Press Next. Each stop is one event. Left: the line")


def test_the_line_of_keras_is_linked_at_its_release(reader, address):
    reader.open(f"{address}#e4")
    links = "[...document.querySelectorAll('.source > .web')].map((link) => link.href)"
    assert reader.ask(links) == [f"{KERAS_SOURCE}keras/trainer.py#L102"]  # the loop has none
    reader.press("j")
    assert reader.ask(links) == [f"{KERAS_SOURCE}keras/trainer.py#L100"]


def test_a_version_that_is_no_release_is_not_linked(explanation, monkeypatch):
    monkeypatch.setattr(keras_source, "VERSION", "3.16.0.dev2026")
    assert "https:" not in html.page(explanation)


def test_the_tab_key_passes_each_part_of_the_page_once(reader, real_address):
    reader.open(real_address)
    stops = []
    here = """(() => {
        const at = document.activeElement;
        const part = at.closest('.skip, .timeline, .here, .about, .search, .events, .source');
        return part ? part.dataset.side ?? part.classList[part.classList.length - 1] : 'none';
    })()"""
    for _ in range(20):
        reader.press(Keys.TAB)
        stops.append(reader.ask(here))
        if stops[-1] == "loop":
            break
    assert list(dict.fromkeys(stops)) == [
        *("skip", "timeline", "here", "about", "search", "events", "fit", "loop")
    ]
    assert len(stops) <= 14
    reader.open(real_address)
    reader.press(Keys.TAB, Keys.ENTER)
    assert reader.ask("document.activeElement.hash") == "#d1"


LINE = "document.querySelector('[data-side=loop] li[aria-current]').getBoundingClientRect()"


def test_the_loops_line_is_on_the_first_screen_of_a_phone(reader, real_address):
    reader.open(real_address, PHONE)
    for _ in range(2):
        assert reader.ask("scrollY") == 0
        assert reader.ask(f"{LINE}.bottom <= innerHeight")
        reader.click("#next")
    reader.open(real_address, (390, 700))  # too low for it: Next leaves the header
    assert reader.ask(f"{LINE}.bottom > innerHeight")
    reader.click("#next")
    assert reader.ask(f"{LINE}.bottom <= innerHeight")
    assert reader.ask("document.getElementById('next').getBoundingClientRect().top >= 0")


def test_a_walk_in_the_cell_of_a_notebook(reader, real, tmp_path):
    (tmp_path / "cell.html").write_text(f"<!doctype html>{real._repr_html_()}", encoding="utf-8")
    reader.open((tmp_path / "cell.html").as_uri())
    reader.browser.switch_to.frame(0)
    reader.click("#next")
    reader.press("j")
    assert reader.text("#count") == "argument 3 of 7"
    reader.click("#d1 > a")
    assert reader.text("#count") == "argument 1 of 7"
    reader.browser.switch_to.default_content()
    assert reader.ask("location.hash") == ""


def test_paper_shows_the_outline_and_what_is_unfolded(reader, address):
    reader.open(address)
    reader.command("Emulation.setEmulatedMedia", media="print")
    shown = f"{SHOWN}.length"
    # 2 decisions, 8 events: of the second batch and the second epoch the headings
    assert reader.ask(shown.format(".entry")) == 2 + 8
    assert reader.ask(shown.format(".printed")) == 2 * (2 + 8)
    assert reader.ask(shown.format(".repeats h3")) == 7
    assert reader.ask(shown.format(".source, nav, .search, .about, .start, .kinds")) == 0
    box = "document.getElementById('events')"
    assert reader.ask(f"{box}.scrollHeight === {box}.clientHeight")
    reader.command("Emulation.setEmulatedMedia", media="")
    reader.press(*"jjjjjj")  # into the second batch
    reader.command("Emulation.setEmulatedMedia", media="print")
    assert reader.ask(shown.format(".entry")) == 2 + 8 + 2


def test_a_real_page_takes_few_sheets_of_paper(reader, real_address):
    reader.open(real_address)
    reader.command("Emulation.clearDeviceMetricsOverride")
    sheets = reader.browser.execute_cdp_cmd("Page.printToPDF", {})["data"]
    assert 1 < len(re.findall(rb"/Type\s*/Page\b", base64.b64decode(sheets))) <= 6
