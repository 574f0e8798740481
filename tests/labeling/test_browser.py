"""The page in Chromium, by the keyboard; skipped where there is no Chromium."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from handful.csv_files import read_csv
from handful.evaluation.accuracy_estimate import Estimate
from handful.labeling.learning import Assessed, as_json
from handful.labeling.serve import listening_server
from handful.text import about_right
from labeling.pages import folder, opened

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """A Chromium page at a labelling page of 30 images; what went wrong is in `problems`."""
    with browser_at(folder(tmp_path / "photos", 30)) as tab:
        tab.wait_for_selector("#frame img")
        yield tab


@contextmanager
def browser_at(source: Path) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with (
        opened(source) as page,
        listening_server(page, "127.0.0.1", 0) as (server, sockets, address),
        sync_api.sync_playwright() as playwright,
    ):
        thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
        thread.start()
        shown = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = shown.new_page()
        tab.problems, tab.session, tab.learner = [], page.session, page.learner
        tab.on("pageerror", lambda error: tab.problems.append(str(error)))
        tab.goto(address)
        try:
            yield tab
        finally:
            shown.close()
            server.should_exit = True
            thread.join()


def typed_class(tab: Any, name: str) -> None:
    if not tab.is_visible("#finder"):
        tab.keyboard.press("/")
    tab.keyboard.type(name)
    tab.keyboard.press("Enter")


def saved(tab: Any, labels: int) -> None:
    tab.wait_for_function(
        "n => document.getElementById('totals').textContent.startsWith(n + ' label')", arg=labels
    )


def test_keys_label_and_undo_and_a_reload_keeps_all(browser: Any, tmp_path: Path) -> None:
    typed_class(browser, "Bär")
    saved(browser, 1)
    typed_class(browser, "大熊猫")
    saved(browser, 2)
    browser.keyboard.press("1")
    browser.keyboard.press("2")
    browser.keyboard.press("Space")
    saved(browser, 4)
    browser.keyboard.press("Backspace")
    browser.keyboard.press("Backspace")
    saved(browser, 3)
    browser.reload()
    browser.wait_for_selector("#frame img")
    saved(browser, 3)
    browser.session.write_table()
    found = sorted(row["label"] for row in read_csv(tmp_path / "labels.csv"))
    assert found == ["Bär", "Bär", "大熊猫"]
    assert browser.problems == []


def test_a_class_named_like_a_script_runs_nothing(browser: Any) -> None:
    name = '<img src=x onerror="window.evil=1">'
    typed_class(browser, name)
    saved(browser, 1)
    assert browser.inner_text("#classes button") == f"1 {name}"
    assert browser.evaluate("window.evil") is None
    assert browser.evaluate("document.querySelectorAll('#classes img, aside img').length") == 0


def test_markup_cannot_be_made_of_a_text_in_the_page(browser: Any) -> None:
    made = browser.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return 'made'; }"
        " catch (error) { return error.name; } }"
    )
    assert made == "TypeError"


def test_the_cookie_cannot_be_read_by_scripts(browser: Any) -> None:
    assert browser.evaluate("document.cookie") == ""


def answers(tab: Any) -> list[str]:
    return tab.eval_on_selector_all("#recent-list span", "all => all.map(one => one.textContent)")


def test_an_earlier_answer_is_opened_again_by_a_key_or_a_click(browser: Any) -> None:
    for name in ("cat", "dog"):
        typed_class(browser, name)
    saved(browser, 2)
    browser.keyboard.press("1")
    saved(browser, 3)
    assert answers(browser) == ["cat", "dog", "cat"]
    waiting = browser.inner_text("#caption")
    browser.keyboard.press("ArrowLeft")
    browser.keyboard.press("ArrowLeft")  # the second image
    assert "Your answer was: dog" in browser.inner_text("#reopened")
    assert not browser.is_visible("#suggestion")
    browser.keyboard.press("1")
    browser.wait_for_function(
        "() => document.querySelectorAll('#recent-list span')[2].textContent === 'cat'"
        " && document.querySelectorAll('#counts li')[1].textContent.startsWith('dog0')"
    )
    assert browser.inner_text("#caption") == waiting  # on with the one that waited
    browser.keyboard.press("Backspace")
    browser.wait_for_function(
        "() => document.querySelectorAll('#counts li')[1].textContent.startsWith('dog1')"
    )
    assert "Your answer was: dog" in browser.inner_text("#reopened")
    browser.keyboard.press("Enter")  # it stays
    assert browser.inner_text("#caption") == waiting
    browser.click("#recent-list li:first-child button")
    assert "Your answer was: cat" in browser.inner_text("#reopened")
    browser.keyboard.press("Escape")
    assert browser.inner_text("#caption") == waiting
    saved(browser, 3)
    marks = browser.session.marks.of.values()
    assert [(mark.label, mark.seen) for mark in marks] == [
        ("cat", "blind"), ("dog", "blind"), ("cat", "blind"),
    ]  # fmt: skip
    assert browser.problems == []


def test_a_label_in_doubt_comes_at_once_marked_and_once_confirmed_never_again(
    browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, learner = browser.session, browser.learner
    for name in ("cat", "dog"):
        typed_class(browser, name)
    saved(browser, 2)
    number, mark = next((session.number[n], m) for n, m in session.marks.of.items())
    monkeypatch.setattr(type(learner), "issues", lambda self: session.in_doubt({number: "cat"}))
    learner.estimate = {"accuracy": None, "how": "few labels", "issues": 1}
    waiting = browser.inner_text("#caption")
    browser.click("#again")
    browser.wait_for_function(
        "() => document.getElementById('reopened').textContent.includes('may be wrong')"
    )
    assert browser.inner_text("#caption") == session.names[number] != waiting
    assert "Its label is: cat" in browser.inner_text("#reopened")
    browser.keyboard.press("Enter")
    browser.wait_for_function("() => document.getElementById('again').hidden")
    assert browser.inner_text("#caption") == waiting  # on with the one that waited
    assert not browser.is_visible("#reopened")
    assert session.marks.of[session.names[number]] == mark._replace(confirmed=True)
    saved(browser, 2)
    assert browser.problems == []


def test_the_name_of_the_second_class_can_just_be_typed(browser: Any) -> None:
    assert not browser.is_visible("#naming")
    typed_class(browser, "ox")
    saved(browser, 1)
    assert "For another class, type its name" in browser.inner_text("#naming")
    assert browser.inner_text("#naming-known") == "1 is “ox” again."
    for name in ("monkey", "Newt"):
        browser.keyboard.type(name)
        assert browser.input_value("#finder-text") == name
        browser.keyboard.press("Enter")
    saved(browser, 3)
    assert not browser.is_visible("#naming")
    browser.keyboard.type("barn")  # a letter that is no key
    browser.keyboard.press("Enter")
    saved(browser, 4)
    browser.keyboard.press("2")
    saved(browser, 5)
    browser.keyboard.press("-")
    browser.wait_for_function("() => totals.textContent.includes('1 none of these')")
    labels = [mark.label for mark in browser.session.marks.of.values()]
    assert labels == ["ox", "monkey", "Newt", "barn", "monkey", None]
    assert browser.problems == []


@pytest.mark.parametrize("name", ["newt", "Panda", "zebra", "Lion"])
def test_no_letter_of_the_second_name_is_a_command(browser: Any, name: str) -> None:
    typed_class(browser, "ox")
    saved(browser, 1)
    browser.keyboard.type(name)
    browser.keyboard.press("Enter")
    saved(browser, 2)
    assert [mark.label for mark in browser.session.marks.of.values()] == ["ox", name]


def two_classes(tab: Any) -> None:
    for labels, name in enumerate(("cat", "dog"), 1):
        typed_class(tab, name)
        saved(tab, labels)


def test_the_image_is_in_view_again_once_a_class_was_typed(browser: Any) -> None:
    two_classes(browser)
    browser.set_viewport_size({"width": 1000, "height": 400})
    browser.evaluate("scrollTo(0, 20)")
    browser.keyboard.press("/")
    assert browser.evaluate("scrollY") > 100  # the field is in view
    browser.keyboard.type("cat")
    browser.keyboard.press("Enter")
    saved(browser, 3)
    assert browser.evaluate("scrollY") == 20


def run_with_answers(run: Path, images: int) -> None:
    """What a page shows of a finished run: its form, and a page of tiles."""
    run.mkdir()
    record = {"method": {"name": "features"}, "data": {"labeled": 4}, "estimate": None}
    (run / "run.json").write_text(json.dumps(record))
    rows = "".join(f"{n:03d}.png,cat,0.9\n" for n in range(images))
    (run / "predictions.csv").write_text(f"file,label,confidence\n{rows}")


@pytest.mark.parametrize("field", [False, True])
def test_done_opens_at_its_top(browser: Any, tmp_path: Path, field: bool) -> None:
    two_classes(browser)
    browser.set_viewport_size({"width": 1000, "height": 400})
    browser.evaluate("scrollTo(0, 300)")
    if field:  # it was opened further down, and is open still
        browser.keyboard.press("/")
    run_with_answers(tmp_path / "run", 30)
    browser.evaluate("handful.go('done')")
    browser.wait_for_selector("#bins-grid .tile")  # they come late
    assert browser.evaluate("document.documentElement.scrollHeight") > 800
    assert browser.evaluate("scrollY") == 0
    browser.evaluate("scrollTo(0, 100)")
    browser.evaluate("handful.go('one')")
    assert browser.evaluate("scrollY") == 0
    assert browser.problems == []


@pytest.mark.parametrize("name", ["nest", "zebra", "Newt", "Zebra"])
def test_with_two_classes_a_name_is_only_typed_too(browser: Any, name: str) -> None:
    two_classes(browser)
    browser.keyboard.type(name)
    assert browser.input_value("#finder-text") == name
    browser.keyboard.press("Enter")
    saved(browser, 3)
    labels = [mark.label for mark in browser.session.marks.of.values()]
    assert labels == ["cat", "dog", name]
    assert browser.get_attribute("#zoom", "aria-pressed") == "false"


def test_letters_go_into_the_open_field_whatever_was_clicked_beside_it(browser: Any) -> None:
    two_classes(browser)
    browser.keyboard.press("/")
    browser.click("#frame")
    browser.keyboard.type("nest")
    browser.keyboard.press("Tab")  # to the button beside it
    browser.keyboard.type("s")
    assert browser.input_value("#finder-text") == "nests"
    browser.click("#frame")
    browser.keyboard.press("Enter")
    saved(browser, 3)
    assert [mark.label for mark in browser.session.marks.of.values()][2] == "nests"
    browser.keyboard.press("/")
    browser.click("#frame")
    browser.keyboard.press("Escape")
    assert not browser.is_visible("#finder")


def test_a_page_of_tiles_that_was_left_does_not_close_the_field(browser: Any) -> None:
    two_classes(browser)
    browser.evaluate(
        "() => { const open = handful.tiles.open.bind(handful.tiles);"
        " handful.tiles.open = () => (window.opened = open()); }"
    )
    browser.keyboard.press("Shift+P")  # it waits for a classifier, which does not learn here
    browser.keyboard.press("Escape")
    browser.keyboard.press("/")
    browser.keyboard.type("ne")
    assert browser.evaluate("() => window.opened") is False  # once it has given up
    browser.keyboard.type("st")
    assert browser.input_value("#finder-text") == "nest" and browser.is_visible("#finder")


def test_the_page_names_the_keys_that_must_be_pressed(browser: Any) -> None:
    for button, key in (("to-tiles", "P"), ("like", "L"), ("tiles-unsure", "U")):
        assert browser.text_content(f"#{button} kbd") == f"Shift+{key}"
        assert browser.get_attribute(f"#{button}", "aria-keyshortcuts") == f"Shift+{key}"
    two_classes(browser)
    browser.keyboard.press("p")  # without Shift it is the start of a name
    assert browser.is_visible("#one") and browser.is_visible("#finder")
    browser.keyboard.press("Escape")
    browser.keyboard.press("Shift+U")
    assert browser.is_visible("#tiles")


@pytest.mark.parametrize("guessing", [False, True])
def test_the_figure_says_whose_it_is(browser: Any, guessing: bool) -> None:
    two_classes(browser)
    seen = {"accuracy": 0.77, "low": 0.6, "high": 0.88, "n": 40, "guessing": guessing}
    of_page = Estimate(**seen, level=0.9, how="out of fold")
    browser.learner.estimate = as_json(Assessed(of_page, None, ()), ["random"] * 40, None)
    browser.wait_for_function("() => estimate.textContent.includes('40 labels count')")
    text = browser.inner_text("#estimate")
    assert text.startswith(f"{about_right(seen)} on new images, by the quick classifier")
    assert "Train (under Done) tries better ones." in text


def test_the_report_of_a_run_opens_from_the_form(browser: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    record = {"method": {"name": "features"}, "data": {"labeled": 4}, "estimate": None}
    (run / "run.json").write_text(json.dumps(record))
    html = (
        "<!doctype html><style>p{color:rgb(255, 0, 0)}</style><p>right</p><script>evil=1</script>"
    )
    (run / "report.html").write_text(html)
    browser.click("#to-done")
    with browser.context.expect_page() as opening:
        browser.click("#report")
    report = opening.value
    assert report.inner_text("p") == "right"
    assert report.evaluate("getComputedStyle(document.querySelector('p')).color") == (
        "rgb(255, 0, 0)"
    )
    assert report.evaluate("typeof evil") == "undefined"
    assert str(run / "report.html") in browser.inner_text("#commands")
    assert browser.problems == []


def test_where_folders_label_every_image_the_page_says_so_and_asks(tmp_path: Path) -> None:
    names = [f"{site}/{n}.png" for site in ("east", "west") for n in range(4)]
    with browser_at(folder(tmp_path / "photos", names=names)) as tab:
        tab.wait_for_selector("#by-folder:not([hidden])")
        assert "Every image has a label, the name of its sub-folder (east, west)" in tab.inner_text(
            "#by-folder-text"
        )
        assert tab.inner_text("#waiting") == "No image is left to label."
        assert not (tmp_path / "labels.csv").exists()
        tab.click("#by-folder [data-answer=groups]")
        tab.wait_for_selector("#frame img")
        typed_class(tab, "crack")
        saved(tab, 1)
        assert tab.is_hidden("#by-folder") and tab.problems == []
    assert [row["label"] for row in read_csv(tmp_path / "labels.csv")] == ["crack"]
