"""The report: figures, sentences, escaping, no external content, and rendering in a browser."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import handful
from handful import cli, report
from handful.errors import HandfulError
from handful.evaluation.accuracy_estimate import BY_HAND
from handful.exporting import card
from handful.methods.ensemble import Ensemble
from handful.output import next_folder
from handful.pipeline.onnx_model import metadata
from handful.pipeline.run import about_answers
from handful.pipeline.summary import summary
from handful.pipeline.thumbnails import answers, mistakes
from handful.report import comparison, plots, read, run, sentences
from handful.report.rendering import rendered
from handful.text import percent
from tiny import stripes

QUICK = {"steps": "3", "backbone.base": "8"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><svg onload=alert(1)> $x^$ --> \x1b{{ 7*7 }}",
)
NOT_PROMISED = "not promised by these labels"
KNOWN = {"accuracy": 0.83, "low": 0.7, "high": 0.92, "n": 60, "guessing": False}
TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "nav", "section", "div", "span",
    "p", "h1", "h2", "h3", "a", "b", "i", "br", "small", "code", "pre", "ul", "li", "dl", "dt",
    "dd", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img",
    "details", "summary",
    "svg", "g", "defs", "path", "use", "text", "tspan", "circle", "clippath", "rect",
}  # fmt: skip


class Page(HTMLParser):
    """Parses elements with their attributes, and the text of table cells, row by row."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.rows, self.text = [], {}, []
        self.table = self.cell = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag in ("br", "div"):
            self.text.append(" ")
        elif tag == "table":
            self.table = self.rows.setdefault(attributes.get("id"), [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")
            self.cell = self.table[-1]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        self.text.append(data)
        if self.cell is not None:
            self.cell[-1] += data.strip().replace("\xa0", " ")

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join("".join(self.text).replace("\xa0", " ").split())


def checked(html):
    """Parse the page and assert that nothing in it runs, loads or links to other places."""
    page = Page(html)
    assert {tag for tag, _ in page.elements} <= TAGS
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            allowed = (
                "data:image/(png|jpeg);base64,|#|(" + "|".join(map(re.escape, run.FILES)) + ")$"
            )
            assert re.match(allowed, attributes.get(name) or "#")
        assert "url(" not in (attributes.get("style") or "").replace("url(#", "")
    policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert re.sub(r"xmlns(:\w+)?=.http://www.w3.org/[\w/]+.", "", html).count("://") == 0
    return page


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run with a test part."""
    folder = tmp_path_factory.mktemp("made") / "run"
    every = stripes(60, labeled=60, channels=3)
    done = handful.fit(
        every[np.arange(40)].seen(np.arange(16)),
        "supervised",
        settings=QUICK, precision="fp32", out=folder, command=["fit", "my photos", "--seed", "0"],
    )  # fmt: skip
    done.score_test(every[np.arange(40, 60)])
    return done


@pytest.fixture
def copied(made, tmp_path):
    """A copy of the run's folder that a test may change."""
    return shutil.copytree(made.folder, tmp_path / "copy")


def change(folder, **keys):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | keys))


def test_the_page_of_a_run_shows_its_record(made):
    page = checked(report.render([made.folder]))
    estimate, test = made.estimate, made.test
    assert "A classifier for 2 classes, from 16 labels" in page.words
    assert "stripes: 16 images with a label and 24 images without" in page.words
    assert f"above about {100 * estimate['low']:.0f} %" in page.words  # 16 labels are few
    assert f"The {test['n']} test images" in page.words
    assert "handful fit 'my photos' --seed 0" in page.words
    assert len(page.all("img")) >= 16 + 2 * 7  # examples, and rows of augmented views
    confusion = json.loads((made.folder / "test.json").read_text())["confusion"]
    table = [row[1:] for row in page.rows[None] if row[0] in made.classes][-2:]
    assert [[int(text or 0) for text in row] for row in table] == confusion


def test_out_of_fold_predictions_are_kept_and_give_the_estimates_own_accuracy(made):
    held = read.read_run(made.folder).held_out
    right = held.probabilities.argmax(axis=1) == held.labels
    assert right.mean() == pytest.approx(made.estimate["out_of_fold"])
    seen = read.read_run(made.folder).labels
    assert seen == dict(zip(held.names, (made.classes[k] for k in held.labels), strict=True))


def test_without_images_no_picture_is_in_the_page(made):
    assert checked(report.render([made.folder], pictures=False)).all("img") == []


def test_no_thumbnails_are_kept_where_none_are_wanted(tmp_path):
    handful.fit(
        stripes(),
        "supervised",
        settings=QUICK,
        estimate="none",
        out=tmp_path / "run",
        pictures=False,
    )
    assert not (tmp_path / "run" / "pictures.json").exists()
    page = checked(report.render([tmp_path / "run"]))
    assert page.all("img") == []
    assert "No estimate was asked for." in page.words


def test_thumbnails_that_an_earlier_run_kept_go_where_none_are_wanted(tmp_path):
    options = {"settings": QUICK, "estimate": "none", "out": tmp_path / "run"}
    handful.fit(stripes(), "supervised", **options)
    report.write_report([tmp_path / "run"], tmp_path / "run" / "report.html")
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    handful.fit(stripes(), "supervised", **options, pictures=False)
    assert not {"pictures.json", "report.html"} & {p.name for p in (tmp_path / "run").iterdir()}
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights


def test_hostile_names_of_classes_files_and_all_else_are_only_text(made, copied):
    """Every text in every file of the folder is replaced by markup."""

    def hostile(value, at=0):
        if isinstance(value, str):
            return renamed.get(value, HOSTILE[at % 3] if not value.startswith("Wilson") else value)
        if isinstance(value, list):
            return [hostile(each, i) for i, each in enumerate(value)]
        if isinstance(value, dict):
            return {key: hostile(each, i) for i, (key, each) in enumerate(value.items())}
        return value

    renamed = dict(zip(made.classes, HOSTILE, strict=False))
    for name in ("run.json", "test.json"):
        path = copied / name
        path.write_text(json.dumps(hostile(json.loads(path.read_text()))))
    for name in ("labels.csv", "out-of-fold.csv", "predictions.csv"):
        lines = [line.split(",") for line in (copied / name).read_text().splitlines()]
        quoted = ['"' + text.replace('"', '""') + '"' for text in HOSTILE]
        text = [
            ",".join(
                quoted[made.classes.index(field)] if field in made.classes
                else f'"p({HOSTILE[made.classes.index(field[2])].replace(chr(34), chr(34) * 2)})"'
                if field.startswith("p(") else field.replace(".png", quoted[0][1:-1])
                for field in line
            )
            for line in lines
        ]  # fmt: skip
        (copied / name).write_text("\n".join(text))
    (copied / "label-next.csv").write_text(f"file,why\n{HOSTILE[0]},{HOSTILE[2]}\n")
    page = checked(report.render([copied]))
    assert HOSTILE[0] in "".join(page.text)
    assert "{{ 7*7 }}" in page.words
    checked(report.render([copied, made.folder]))


def test_a_name_that_is_no_unicode_or_no_xml_is_shown_all_the_same(copied):
    change(copied, handful="\udcff \x00")
    assert "\x00" not in percent(0.5)
    report.write_report([copied], copied / "report.html")
    assert (copied / "report.html").read_bytes().decode()
    rows = [plots.Row("a\x00\udcff\x1b", [0.1, 0.2], 0.15, None, None, 0)]
    assert "aria-label" in plots.dots("title", rows, "x").svg


@pytest.mark.parametrize(
    "picture",
    ["https://example.com/a.png", "PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+", '"><script>', "", 3],
)
def test_a_picture_that_is_none_is_refused(copied, picture):
    kept = {"images": {"a": picture}, "augmented": []}
    (copied / "pictures.json").write_text(json.dumps(kept))
    with pytest.raises(ValueError, match="pictures.json is damaged"):
        report.render([copied])


@pytest.mark.parametrize(
    "record",
    [{"data": []}, {"estimate": {"accuracy": "high"}}, {"method": None}, {"training": 3},
     {"data": {"classes": ["a"]}}],
)  # fmt: skip
def test_a_damaged_record_is_one_line_not_a_traceback(copied, record):
    change(copied, **record)
    with pytest.raises(HandfulError, match="run.json .*; .*restore it or fit again"):
        report.render([copied])


@pytest.mark.thorough
def test_a_training_that_went_wrong_is_said_before_any_figure(copied):
    training = json.loads((copied / "run.json").read_text())["training"]
    change(copied, training=training | {"collapse": None})
    assert "Training went wrong" not in report.render([copied])
    found = {"step": 40, "reason": "one class <b> has taken over", "kept": 30}
    change(copied, training=training | {"collapse": found | {"right": 0.1, "chance": 0.1}})
    page = checked(report.render([copied]))
    text = (
        "Training went wrong. One class <b> has taken over; the averaged weights of step 30 are "
        "kept, with 10% of the labelled images right, no more than the 10% that have the commonest "
        "label: no use."
    )
    assert text in page.words
    assert page.words.index(text) < page.words.index("On the test images it was right")
    change(copied, training=training | {"collapse": found})  # as older runs have it
    assert "the averaged weights of step 30 are kept." in checked(report.render([copied])).words
    for damaged in (3, {"step": 40}):
        change(copied, training=training | {"collapse": damaged})
        with pytest.raises(ValueError, match="collapse.*restore it or fit again"):
            report.render([copied])
    del training["collapse"]  # as still older runs have it
    change(copied, training=training)
    report.render([copied])


def test_a_remark_on_training_is_said_before_any_figure_too(copied):
    training = json.loads((copied / "run.json").read_text())["training"]
    assert training["remark"] is None
    assert "Please check" not in report.render([copied])
    change(copied, training=training | {"remark": "nearly all guesses are of <b>"})
    page = checked(report.render([copied]))
    text = "Please check. Nearly all guesses are of <b>."
    assert page.words.index(text) < page.words.index("On the test images it was right")
    del training["remark"]  # as older runs have it
    change(copied, training=training)
    report.render([copied])


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds neither a finished run nor a comparison"):
        report.render([tmp_path])


def test_parts_of_missing_files_are_left_out(copied):
    kept = ("run.json", "test.json", "labels.csv")
    for path in copied.iterdir():
        if path.name not in kept:
            path.unlink()
    page = checked(report.render([copied]))
    ids = {attributes.get("id") for attributes in page.all("section")}
    assert ids == {"accuracy", "confusion", "next", "statistics", "files", "again"}
    assert "All answers" not in page.words


def test_the_page_lists_the_files_of_the_run_and_the_next_command(made):
    page = checked(report.render([made.folder]))
    assert "the labels that were used, and how the images were picked" in page.words
    folder = shlex.quote(str(made.folder))
    assert f"--labels {folder}/label-next.csv --after {folder}" in page.words


def test_the_page_offers_only_target_accuracies_that_can_be_reached(copied):
    kept = json.loads((copied / "run.json").read_text())["estimate"] | KNOWN
    rows = {0.8: [], 0.9: [{"sure": 0.9, "threshold": 0.7, "share": 0.5, "accuracy": 0.95}]}
    for target, promised in rows.items():
        change(copied, estimate=kept | {"abstentions": promised})
        text = checked(report.render([copied])).words
        assert ("--abstain 0.9 answers only where" in text) == bool(promised), target


@pytest.mark.parametrize(
    "known, offered, gains, in_table",
    [
        ({}, True, True, ["anyall", "70.0 %50 %", "70.0 %50 %", NOT_PROMISED]),
        ({"accuracy": 0.93}, False, False, ["anyall", "70.0 %50 %", "70.0 %50 %", NOT_PROMISED]),
        (
            {"accuracy": 0.999, "low": 0.85},
            True,
            True,
            ["anyall", "70.0 %50 %", "70.0 %50 %", NOT_PROMISED],
        ),
        ({"share": 0.03}, False, True, ["anyall", "70.0 %3 %", "70.0 %3 %", NOT_PROMISED]),
        ({"n": 15}, False, False, None),
        ({"guessing": True}, False, False, None),
    ],
)
def test_what_is_promised_of_sure_answers_is_one_rule_for_all_commands_and_pages(
    copied, known, offered, gains, in_table
):
    share = known.get("share", 0.5)
    estimate = json.loads((copied / "run.json").read_text())["estimate"] | KNOWN | known
    estimate["abstentions"] = [
        {"sure": 0.8, "threshold": 0.4, "share": 1.0, "accuracy": 0.9, "held": 0.9},
        {"sure": 0.9, "threshold": 0.7, "share": share, "accuracy": 0.95, "held": 0.9},
    ]
    change(copied, estimate=estimate)
    page = checked(report.render([copied]))
    rows = page.rows.get("abstentions")
    assert (rows and ["".join(row[1:]) for row in rows[1:]]) == in_table
    opened = handful.open_run(copied)
    told = _plain(card._doubts(opened, sentences.tell(estimate, None, None, ["random"])))
    screen = _plain(" ".join(summary(opened, "photos")))
    assert ("--abstain 0.9" in screen) == offered and "--abstain 0.8" not in screen
    if in_table is None:
        why = "better than guessing" if estimate["guessing"] else "fewer than 20 labels of random"
        for words in (page.words, told, _refused(opened, 0.85)):
            assert "promise" in words and why in words
        assert metadata(opened.record, opened.predictor, None)["abstentions"] == []
        return
    granted = _plain(*about_answers(opened, 0.85, False))
    assert granted in page.words and granted in told and (granted in screen) == offered
    assert ("All answers together are already expected to be right as often" in page.words) != gains
    assert metadata(opened.record, opened.predictor, None)["abstentions"] == estimate["abstentions"]
    assert "cannot promise that 95 % of the answers are right" in _refused(opened, 0.95)


def _refused(opened, target):
    with pytest.raises(ValueError) as refused:
        opened.answering(target)
    return _plain(str(refused.value))


def _plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_says_for_how_many_sets_of_labels_a_threshold_holds(copied):
    kept = json.loads((copied / "run.json").read_text())["estimate"] | KNOWN
    row = {"sure": 0.9, "threshold": 0.7, "share": 0.5, "accuracy": 0.95}
    said = {}
    for held in (0.9, None):
        change(copied, estimate=kept | {"abstentions": [row | ({"held": held} if held else {})]})
        said[held] = checked(report.render([copied])).words
    assert "Each line holds for nine in ten sets of labels picked as these were" in said[0.9]
    assert "about half of such thresholds give fewer right answers than they say" in said[None]


def test_a_test_score_without_its_interval_is_refused_by_name(copied):
    score = json.loads((copied / "run.json").read_text())["test"]
    for missing in ("level", "low"):
        change(copied, test={key: value for key, value in score.items() if key != missing})
        with pytest.raises(ValueError, match="does not hold what handful writes there"):
            report.render([copied])


def test_labels_that_were_chosen_do_not_count_in_the_confusion_matrix(made, copied):
    text = (copied / "labels.csv").read_text().replace(",unknown,", ",chosen,", 3)
    (copied / "labels.csv").write_text(text)
    found = run.page(read.read_run(copied))
    assert [matrix.n for matrix in found.matrices] == [13, 20]
    assert [row["held"]["n"] for row in found.classes] == [6, 7]
    told = found.matrices[0].said
    assert told.startswith("Of 16 labels, 3 were chosen and not drawn at random, and do not count")
    right = 13 - found.matrices[0].wrong
    assert f"{right} of 13 are right here ({percent(right / 13)})" in told
    assert found.matrices[1].said == ""  # of test images


def test_a_matrix_says_why_its_share_differs_from_the_figure(copied):
    kept = json.loads((copied / "run.json").read_text())["estimate"]
    matrix = run.page(read.read_run(copied)).matrices[0]
    for single, differs in ((1 - matrix.wrong / matrix.n, False), (0.123, True)):
        change(copied, estimate=kept | {"out_of_fold": single})
        words = checked(report.render([copied])).words
        told = f"the single models, of which {100 * single:.1f} %"
        assert (told in words) == differs


def test_classes_that_may_be_one_are_named_in_the_page(copied):
    page = replace(run.page(read.read_run(copied)), spelling=("Dog and dog may be one.",))
    assert "Please check. Dog and dog may be one." in checked(rendered("run.html", page=page)).words


def test_without_a_forecast_the_page_says_why(copied):
    kept = json.loads((copied / "run.json").read_text())["estimate"]
    for rough, said in ((True, "It takes fits on half of the labels"), (False, "")):
        known = kept | {"n": 60, "rough": rough, "guessing": False, "accuracy": 0.8, "low": 0.7}
        assert sentences.why_no_forecast(known).startswith("What more labels" if said else "")
        assert said in sentences.why_no_forecast(known)
    assert "from 20 labels of random images on" in sentences.why_no_forecast(known | {"n": 9})
    for others, said, asked in (
        ({}, True, True),
        ({"n": 9}, True, False),
        ({"accuracy": 0.999}, False, False),
    ):
        rough = known | {"rough": True} | others
        change(copied, estimate=rough, forecast=[])
        page = checked(report.render([copied]))
        folder = shlex.quote(str(copied))
        again = f"--after {folder} --method features --out {next_folder(copied)}"
        assert (again in page.words) == asked
        why = sentences.why_no_forecast(rough)
        assert bool(why) == said and why in page.words
        assert ("What more labels should bring What more" in page.words) == said  # below its title


def test_the_forecast_for_more_labels_is_shown(copied):
    kept = json.loads((copied / "run.json").read_text())["estimate"]
    forecast = [{"labels": 32, "accuracy": 0.9, "low": 0.8, "high": 0.95}]
    said = "With 32 labels it should be right for about 90 % (80 to 95)."
    for n in (16, 60):
        change(copied, forecast=forecast, estimate=kept | {"n": n})
        assert (said in checked(report.render([copied])).words) == (n == 60)


@pytest.mark.parametrize(
    "accuracy, low, high, n, value, interval",
    [
        (0.7162, 0.5809, 0.8212, 60, "about 72 %", "58 to 82 %, nine times in ten"),
        (0.9912, 0.9853, 0.9943, 4000, "about 99.1 %", "98.5 to 99.4 %, nine times in ten"),
        (1.0, 0.42, 1.0, 19, "above about 42 %", ""),
        (0.997, 0.88, 1.0, 30, "above about 88 %")
        + ("nearly all labelled images were predicted rightly",),
    ],
)
def test_an_accuracy_is_said_as_exactly_as_it_is_known(accuracy, low, high, n, value, interval):
    told = sentences.headline(
        {"accuracy": accuracy, "low": low, "high": high, "n": n, "level": 0.9}
    )
    assert (told.value, told.range) == (
        value.replace(" %", "\xa0%"),
        interval.replace(" %", "\xa0%"),
    )
    assert told.bound == (n < 20)


@pytest.mark.parametrize(
    "n, accuracy, high, said",
    [(12, 0.83, 0.96, "above about 49 % right."), (60, 0.83, 0.96, "about 83 % right (49–96 %)."),
     (60, 0.999, 1.0, "above about 49 % right.")],
)  # fmt: skip
def test_a_figure_that_was_withheld_is_not_in_the_report_of_the_next_run(
    copied, n, accuracy, high, said
):
    before = json.loads((copied / "run.json").read_text())["estimate"]
    before |= {"accuracy": accuracy, "low": 0.49, "high": high, "n": n, "guessing": False}
    change(copied, after={"fingerprint": "a", "labeled": 40, "estimate": before})
    words = checked(report.render([copied])).words
    assert f"The earlier run, from 40 labels: {said}" in words
    assert ("83" in words.partition("The earlier run")[2][:90]) == ("about 83" in said)


def test_where_only_the_left_end_is_known_the_bar_has_no_right_end_and_no_mark(copied):
    kept = json.loads((copied / "run.json").read_text())["estimate"]
    kept |= {"accuracy": 0.83, "low": 0.49, "high": 0.96, "guessing": False}
    for known, band, marks in [
        ({"n": 12}, ("band open", "left: 49.00%; right: 0"), 0),
        ({"n": 60}, ("band", "left: 49.00%; width: 47.00%"), 1),
        ({"n": 60, "guessing": True}, ("band", "left: 49.00%; width: 47.00%"), 0),
    ]:
        change(copied, estimate=kept | known)
        page = checked(report.render([copied]))
        drawn = [(one.get("class"), one.get("style")) for one in page.all("span")]
        assert band in drawn and sum(kind == "mark" for kind, _ in drawn) == marks
        assert ("of which only the left end is known" in page.words) == (known["n"] == 12)
        assert ("The estimate is 83" in page.words) == bool(marks)


@pytest.mark.parametrize(
    "known, said",
    [
        ({}, "expect about 72 to be classified rightly; it may be 58 to 82."),
        ({"guessing": True}, "is not shown to be better than guessing; it may be 58 to 82."),
        (
            {"accuracy": 0.999, "low": 0.9, "high": 1.0},
            "expect nearly all to be classified rightly",
        ),
        ({"n": 9}, "The 9 labels that count show no more than a bound."),
    ],
)
def test_what_an_estimate_means_is_said_as_in_its_headline(known, said):
    estimate = {"accuracy": 0.7162, "low": 0.5809, "high": 0.8212, "n": 60, "level": 0.9}
    estimate |= {"caveats": [], "how": "by folds", "abstentions": []}
    assert said in sentences.tell(estimate | known, None, None, ["random"]).means


def test_whether_it_is_good_enough_is_said_in_counts_of_images():
    estimate = {"accuracy": 0.72, "low": 0.581, "high": 0.821, "n": 60, "level": 0.9}
    row = {"sure": 0.9, "threshold": 0.7, "share": 0.44, "accuracy": 0.95, "held": 0.9}
    said = sentences.good_enough(estimate | {"abstentions": [row]}, 2002, {"fox": 45, "a": 15}, "r")
    assert "Of the 2,002 images that it classified, expect about 360 to 840 to be wrong" in said[0]
    assert "Answering “fox” every time would be right for about 75" in said[1]
    assert "about 44" in said[2] and "handful predict r PHOTOS --abstain 0.9" in said[2]
    few = sentences.good_enough(estimate | {"abstentions": [], "n": 12}, 2002, {"fox": 9}, "r")
    assert "12 labels of images that were picked at random count" in few[0]
    assert "Of the 2,002" not in " ".join(few)
    guessing = {"guessing": True, "abstentions": []}
    for n, told in ((12, False), (60, True)):  # few labels are no proof of guessing
        said = sentences.good_enough(estimate | guessing | {"n": n}, 9, {"fox": 9}, "r")
        assert any("not shown to be better than guessing" in line for line in said) == told
        why = sentences.why_no_forecast(estimate | guessing | {"n": n})
        assert ("not shown to learn" in why) == told


def test_the_answers_of_a_class_are_its_surest_and_its_least_sure_without_overlap():
    predicted = np.array([0, 0, 0, 1, -1, 0] + [2] * 40)
    confidence = np.array([0.5, 0.9, 0.7, 0.6, 0.1, 0.8] + [k / 40 for k in range(40)])
    found = answers(predicted, confidence, 4)
    assert [one.total for one in found] == [4, 1, 40, 0]
    assert (found[0].surest.tolist(), found[0].least_sure.tolist()) == ([1, 5], [0, 2])
    assert (found[1].surest.tolist(), found[1].least_sure.tolist()) == ([3], [])
    assert found[2].surest.tolist() == [45, 44, 43, 42, 41]
    assert found[2].least_sure.tolist() == [6, 7, 8, 9, 10]


def test_the_page_shows_what_it_answers_before_how_often_it_is_right(made):
    page = checked(report.render([made.folder]))
    rows = read.read_run(made.folder).predicted
    assert len(rows.names) == 24
    shown = run.page(read.read_run(made.folder)).answers
    assert all(card.source for row in shown for card in (*row.surest, *row.least_sure))
    assert page.words.index("What it answers") < page.words.index("How often it is right")
    for name, n in zip(made.classes, np.bincount(rows.classes, minlength=2), strict=True):
        assert f"{name} {n} images" in page.words or f"{name}{n} images" in page.words


def test_answers_that_may_be_guesses_are_not_shown_as_if_they_meant_something(copied):
    kept = json.loads((copied / "run.json").read_text())["estimate"]
    for guessing in (False, True):
        change(copied, estimate=kept | {"n": 60, "guessing": guessing})
        page = checked(report.render([copied]))
        section = page.words.partition("What it answers")[2].partition("How often it is right")[2]
        section = section.partition("How often it is right")[0]
        assert ("surest" in section) != guessing
        assert ("any of its answers may be a guess" in section) == guessing
        assert "predictions.csv" in section


@pytest.mark.parametrize(
    "row, said",
    [
        ("030.png,owl,0.5", "names 'owl', which is no class"),
        ("030.png,a,2", "'2' is no number fro"),
    ],
)
def test_answers_that_are_not_of_this_run_are_one_line_not_a_traceback(copied, row, said):
    (copied / "predictions.csv").write_text(f"file,label,confidence\n{row}\n")
    with pytest.raises(HandfulError, match=said):
        report.render([copied])


def test_files_are_linked_only_where_the_page_lies_beside_them(made, tmp_path):
    report.write_report([made.folder], made.folder / "report.html")
    inside = checked((made.folder / "report.html").read_text())
    report.write_report([made.folder], tmp_path / "elsewhere.html")
    outside = checked((tmp_path / "elsewhere.html").read_text())
    linked = [[a["href"] for a in p.all("a") if a["href"][0] != "#"] for p in (inside, outside)]
    assert "predictions.csv" in linked[0]
    assert all((made.folder / name).is_file() for name in linked[0])
    assert linked[1] == []


def test_every_method_that_was_tried_is_compared_with_the_chosen_one(copied):
    """By differences alone: the accuracy of the chosen one is the estimate, and said once."""
    tried = {"backbone": "lite0", "size": 96, "level": 0.9, "seconds": 130.0, "chosen": False}
    change(
        copied,
        choice=[
            tried | {"method": "features", "accuracy": None, "low": None, "high": None}
            | {"verdict": "left: <b>"},
            tried | {"method": "supervised", "accuracy": 0.8, "low": 0.7, "high": 0.9}
            | {"verdict": "chosen", "chosen": True},
            tried | {"method": "uda", "accuracy": 0.775, "low": 0.7, "high": 0.9}
            | {"verdict": "as good as supervised, within 4 points"},
        ],
    )  # fmt: skip
    html = report.render([copied])
    page = checked(html)
    assert page.rows["tried"][1:] == [
        ["features", "lite0, 96 pixels", "–", "2.2 min", "left: <b>"],
        ["supervised", "lite0, 96 pixels", "", "2.2 min", "chosen"],
        ["uda", "lite0, 96 pixels", "−2.5 points", "2.2 min"]
        + ["as good as supervised, within 4 points"],
    ]
    assert "Why supervised" in page.words and "80.0 %" not in page.words
    assert "trains a network on the labelled images alone" in page.words
    assert "trains a network to predict the same for an image and" in page.words


def test_without_a_choice_the_page_has_no_word_of_one(made):
    assert "tried" not in checked(report.render([made.folder])).rows


def test_bins_of_few_test_images_are_pooled_with_their_neighbours():
    bins = [
        {"n": 2, "confidence": 0.2, "accuracy": 0.0},
        {"n": 0, "confidence": None, "accuracy": None},
        {"n": 6, "confidence": 0.5, "accuracy": 0.5},
        {"n": 4, "confidence": 0.8, "accuracy": 1.0},
        {"n": 30, "confidence": 0.97, "accuracy": 0.9},
    ]
    surest, rest = run._pooled(bins)
    assert surest == {"n": 30, "confidence": pytest.approx(0.97), "accuracy": pytest.approx(0.9)}
    assert rest["n"] == 12 and rest["accuracy"] == pytest.approx(7 / 12)
    assert rest["confidence"] == pytest.approx((0.4 + 3 + 3.2) / 12)
    assert run._pooled(bins[:1])[0]["n"] == 2 and run._pooled(bins[1:2]) == []


def test_new_class_shares_are_hinted_at_once(copied):
    record = json.loads((copied / "run.json").read_text())
    for caveats in ([], [BY_HAND]):
        change(copied, estimate=record["estimate"] | {"caveats": caveats})
        assert checked(report.render([copied])).words.count("give --prior") == 1


def test_the_list_of_images_to_label_is_shown_in_its_order(copied):
    names = [f"{number:03}.png" for number in range(48)]
    rows = [f"{name},random,a,0.51\n" for name in reversed(names)]
    for count, said in ((48, "The first 24 of the 48 images in"), (24, "The images in")):
        table = "file,why,prediction,confidence\n" + "".join(rows[:count])
        (copied / "label-next.csv").write_text(table)
        words = checked(report.render([copied])).words
        assert f"{said} label-next.csv, in its order. The next estimate" in words
        assert "handful label chooses anew after each label, so it shows other images" in words
        shown = words.partition("in its order")[2]
        places = [shown.index(name) for name in reversed(names[24:])]
        assert places == sorted(places) and names[23] not in shown


def test_images_to_label_next_are_shown_with_their_reason(copied):
    (copied / "label-next.csv").write_text(
        "file,why,prediction,confidence\n001.png,uncertain,a,0.51\n030.png,random,b,0.99\n"
    )
    page = checked(report.render([copied]))
    assert "Images to label next" in page.words
    assert "uncertain looks like a 51 % 001.png" in page.words
    assert "random 030.png" in page.words  # an earlier version wrote a guess
    assert "marked random: no guess is shown for them, so that your label is your own" in page.words


def test_the_most_confident_mistakes_come_first():
    labels = np.array([0, 1, 0, 1])
    shares = np.array([[0.2, 0.8], [0.4, 0.6], [0.1, 0.9], [0.6, 0.4]])
    assert mistakes(labels, shares).tolist() == [2, 0, 3]


def test_a_history_is_drawn_by_kind_whatever_is_in_it():
    history = [
        {"step": s, "seconds": s, "loss": 9.0 / (s + 1) ** 4, "labeled": 1.0, "unlabeled": 0.5,
         "validation_loss": 1.0, "train_accuracy": 0.5, "kept": 0.3, "pseudo_0": 0.4,
         "pseudo_1": 0.6, "width": 7.0, "lr": 0.1}
        for s in range(5)
    ]  # fmt: skip
    curves = run.curves(history, ["cat", "dog"])
    keys = {curve.title: [entry.text for entry in curve.entries] for curve in curves}
    assert keys == {
        "Loss": ["total, augmented batches", "supervised part", "unsupervised part",
                 "validation images", "width"],
        "Accuracy": ["labelled images"],
        "Unlabelled images": ["unlabelled images used"],
        "Classes guessed": ["cat", "dog"],
    }  # fmt: skip
    assert run.curves([], ["cat"]) == run.curves(history[:1], ["cat"]) == []


def test_a_plot_takes_every_colour_from_the_page():
    series = [plots.Series(str(k), [0, 1, 2], [k + 1.0, 1.0, 2.0]) for k in range(8)]
    svg = plots.lines("Loss", series).svg
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?![\w-])", re.sub(r'(href="|url\()#\w+', "", svg))
    assert {f"var(--series-{k})" for k in range(1, 7)} <= set(re.findall(r"var\(--[\w-]+\)", svg))
    assert "font-family" not in svg and "<style" not in svg and "<metadata" not in svg


def test_the_settings_of_an_ensemble_are_how_much_each_member_counts(copied):
    method = Ensemble("features", ("fine_tuning", "supervised"), 0.4, (0.8, 0.9), (0.25, 0.5))
    change(copied, method={"name": "ensemble", **json.loads(json.dumps(asdict(method)))})
    words = checked(report.render([copied])).words
    assert "ensemble (weights: features 0.25, fine_tuning 0.25, supervised 0.5)" in words
    assert "temperature" not in words


@pytest.mark.parametrize(("seconds", "unit"), [(7.6, "seconds"), (160.0, "minutes")])
def test_times_are_drawn_in_the_unit_that_a_person_would_say(seconds, unit):
    series = plots.Series("a", [1.0, seconds], [0.5, 0.6])
    assert f">{unit} of one fit<" in plots.scatter("Time", [(series, 0)]).svg


def test_a_plot_of_differences_shows_no_difference_too():
    rows = [plots.Row("a", [0.04, 0.05], 0.045, 0.042, 0.048, 0)]
    ticks = re.findall(r">([\d.−]+)</text>", plots.dots("Apart", rows, "points", zero=True).svg)
    assert "0" in ticks and "4" in ticks


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [(0.85, "inside the interval"), (0.95, "too careful"), (0.7, "too hopeful")],
)
def test_the_test_score_is_compared_with_the_interval(accuracy, said):
    estimate = {"accuracy": 0.8, "low": 0.75, "high": 0.9, "level": 0.9, "how": "", "caveats": []}
    narrow = {"accuracy": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.02, "n": 999}
    told = sentences.tell(estimate, narrow, None, ["random"])
    assert said in told.tested
    assert "test score is the more precise" in told.tested
    wide = narrow | {"low": accuracy - 0.3, "high": accuracy + 0.3, "n": 9}
    assert "the surer one" not in sentences.tell(estimate, wide, None, ["random"]).tested
    assert "it may be 75 to 90" in told.means
    assert not any("not recorded" in doubt for doubt in told.doubts)
    told = sentences.tell(estimate, None, {"cat": 0.2, "dog": 0.8}, ["unknown"])
    assert "cat 20" in told.assumes
    assert any("not recorded" in doubt for doubt in told.doubts)


@pytest.mark.parametrize(
    "origins, said",
    [
        (["unknown"], "How the labelled images were picked is not recorded."),
        (["unknown", "chosen"], "How the other labelled images were picked is not recorded."),
        (["unknown", "random"], "How some of the labelled images were picked is not recorded."),
        (["random", "chosen"], ""),
    ],
)
def test_how_images_were_picked_is_not_recorded_of_those_of_which_it_is_not(origins, said):
    estimate = {
        "accuracy": 0.8, "low": 0.7, "high": 0.9, "level": 0.9, "n": 60, "caveats": [], "how": "",
        "guessing": False,
    }  # fmt: skip
    doubts = " ".join(sentences.tell(estimate, None, None, origins).doubts)
    assert said in doubts and ("is not recorded" in doubts) == bool(said)


def test_an_estimate_that_cannot_be_given_says_why():
    estimate = {"accuracy": None, "how": "no estimate: every label was chosen"}
    assert sentences.tell(estimate, None, None, []).how == estimate["how"]
    assert sentences.tell(None, None, None, []).how == "No estimate was asked for."


def cells(**accuracies):
    return [
        {"method": name, "draw": draw, "test_accuracy": accuracy, "seconds": 60.0,
         "estimate": {"accuracy": 0.8, "low": 0.7, "high": 0.86}}
        for name, found in accuracies.items()
        for draw, accuracy in enumerate(found)
    ]  # fmt: skip


def study(tmp_path, **accuracies):
    data = {"source": "photos", "per_class": 4, "classes": 3, "test": 99}
    kept = {"cells": cells(**accuracies), "data": data}
    (tmp_path / "comparison.json").write_text(json.dumps(kept))
    return comparison.page(comparison.of_folder(tmp_path))


def test_a_comparison_names_a_leader_only_where_the_draws_agree(tmp_path):
    clear = study(tmp_path, a=[0.80, 0.70, 0.75], b=[0.85, 0.76, 0.80])
    assert clear.verdict[0].startswith("b leads with 80.3")
    assert "ahead of a by 5.3 points" in clear.verdict[0]
    unclear = study(tmp_path, a=[0.80, 0.70, 0.75], b=[0.85, 0.69, 0.76])
    assert "b has the highest mean" in unclear.verdict[0]
    assert "not clearly ahead of a" in unclear.verdict[0]
    single = study(tmp_path, a=[0.8], b=[0.9])
    assert "one draw in common, which says little" in single.verdict[0]


def test_a_comparison_shows_every_draw_and_how_many_estimates_held(tmp_path):
    study(tmp_path, a=[0.80, 0.60], b=[0.85, 0.90])
    page = checked(report.render([tmp_path]))
    table = page.rows["cells"]
    assert table[0] == ["", "a", "b"]
    assert table[1:3] == [["draw 0", "80.0", "85.0"], ["draw 1", "60.0", "90.0"]]
    assert table[-1] == ["estimates held", "1 of 2", "1 of 2"]
    assert "in 2 of 4 fits" in page.words


def test_a_comparison_states_its_command_and_what_was_changed(tmp_path):
    study(tmp_path, a=[0.80, 0.60], b=[0.85, 0.90])
    assert "How it was made" not in checked(report.render([tmp_path])).words
    kept = json.loads((tmp_path / "comparison.json").read_text())
    made = {"command": ["compare", "my photos"], "changed": {"steps": "5", "size": "32"}}
    (tmp_path / "comparison.json").write_text(json.dumps(kept | made))
    page = checked(report.render([tmp_path]))
    assert "handful compare 'my photos'" in page.words
    assert page.rows["changed"][1:] == [["steps", "5"], ["size", "32"]]


def test_runs_side_by_side_state_the_settings_that_differ(made, copied):
    record = json.loads((copied / "run.json").read_text())
    change(copied, seed=7, schedule=record["schedule"] | {"steps": 4})
    rows = checked(report.render([made.folder, copied])).rows["changed"]
    assert rows[1:] == [["schedule.steps", "3", "4"], ["seed", "0", "7"]]


def test_the_differences_are_those_of_the_draws_that_both_saw(tmp_path):
    kept = study(tmp_path, a=[0.8, 0.6, 0.5], b=[0.85, 0.7]).study
    assert kept.differences("b", "a") == pytest.approx([0.05, 0.1])


def test_runs_side_by_side_are_named_by_what_tells_them_apart(made, copied):
    change(copied, schedule={"steps": 4})
    found = comparison.of_runs([read.read_run(made.folder), read.read_run(copied)])
    assert found.names == ["supervised (run)", "supervised (copy)"]
    assert found.rows == ["16 labels, set 1"]
    page = checked(report.render([made.folder, copied]))
    assert f"{100 * made.test['accuracy']:.1f}" in page.rows["cells"][1]


def of_records(made, *changes):
    """The study of copies of the run `made`, each with changes to its record."""
    plain = read.read_run(made.folder)
    return comparison.of_runs(
        [
            replace(plain, record=plain.record | change, folder=Path(f"runs/{number}/draw-0"))
            for number, change in enumerate(changes)
        ]
    )


def within(made, key, **changes):
    return {key: made.record[key] | changes}


def test_seeds_on_the_same_labels_are_one_draw_of_one_method(made):
    other = within(made, "backbone", weights="sha256:other")
    scores = [within(made, "test", accuracy=share) for share in (0.5, 0.75)]
    found = of_records(made, scores[0], scores[1] | other | {"seed": 7})
    assert found.names == ["supervised"]
    (row, (first,)), (again, (second,)) = found.table()
    assert (row, again) == ("16 labels, set 1, seed 0", "16 labels, set 1, seed 7")
    assert (first, second) == (0.5, 0.75)
    standing = comparison.page(found).standings[0]
    assert (standing.found.mean, standing.found.n, standing.found.low) == (0.625, 1, None)
    assert "62.5\xa0% on one draw, 2 fits" in standing.sentence
    assert "Several fits of a method on the same labels count as one draw" in found.about


def test_runs_on_other_labels_with_other_seeds_and_weights_are_draws_of_one_method(made):
    other = within(made, "backbone", weights="sha256:other") | within(made, "data", hash="other")
    found = of_records(made, {}, other | {"seed": 7})
    assert found.names == ["supervised"]
    assert found.rows == ["16 labels, set 1", "16 labels, set 2"]
    assert comparison.page(found).standings[0].found.n == 2
    assert "one draw, with" not in found.about


def test_no_run_is_left_out_of_a_mean(made):
    """Two pre-trainings with different seeds, followed by one seed on equal labels."""
    one = within(made, "test", accuracy=0.5) | {"stage": {}, "init": "a"}
    two = within(made, "test", accuracy=1.0) | {"stage": {}, "init": "b"}
    found = of_records(
        made, one | within(made, "method", seed=0), two | within(made, "method", seed=1)
    )
    assert found.table() == (("16 labels, set 1, seed 0", (0.75,)),)


def test_runs_are_told_apart_by_their_settings(made):
    budget = within(made, "training", budget=60.0)
    more, fewer = (within(made, "schedule", steps=steps) for steps in (9, 5))
    assert len(of_records(made, budget | more, budget | fewer).names) == 1
    for one, two in (
        (more, fewer),
        (budget, {}),
        (budget, budget | {"estimate": None}),
        (budget, budget | {"choice": [{"method": "features"}]}),
        (budget, within(made, "training", budget=30.0)),
        ({"init": "a"}, {"init": "b"}),
        (within(made, "backbone", options={"base": 9}), {}),
        (within(made, "input", size=9), {}),
    ):
        names = of_records(made, one, two).names
        assert names == ["supervised (0/draw-0)", "supervised (1/draw-0)"]


def test_runs_on_other_labels_have_no_draw_in_common(made, copied):
    data = json.loads((copied / "run.json").read_text())["data"]
    change(copied, data=data | {"hash": "sha256:other"}, schedule={"steps": 4})
    (text, *_) = comparison.page(
        comparison.of_runs([read.read_run(made.folder), read.read_run(copied)])
    ).verdict
    assert "no draw in common" in text


@pytest.mark.thorough
def test_a_folder_that_is_given_twice_is_shown_once(made, copied):
    change(copied, schedule={"steps": 4})
    twice = [made.folder, copied, made.folder.parent / "." / made.folder.name]
    assert report.render(twice) == report.render(twice[:2])
    assert report.render([made.folder, made.folder]) == report.render([made.folder])


def test_a_training_that_went_wrong_is_said_beside_the_others(copied, made):
    training = json.loads((copied / "run.json").read_text())["training"]
    change(copied, training=training | {"collapse": {"step": 9, "reason": "it broke", "kept": 6}})
    assert (
        f"Training of supervised on 16 labels, set 1, seed {made.record['seed']} went wrong. It "
        "broke; the averaged weights of step 6 are kept."
    ) in checked(report.render([made.folder, copied])).words


def test_a_comparison_says_which_of_its_trainings_went_wrong(tmp_path):
    study(tmp_path, a=[0.80, 0.60], b=[0.85, 0.10])
    kept = json.loads((tmp_path / "comparison.json").read_text())
    assert "went wrong" not in checked(report.render([tmp_path])).words  # cells of older versions
    for cell in kept["cells"]:
        cell["trouble"] = "class <b> swallowed all" if cell["test_accuracy"] == 0.1 else ""
    (tmp_path / "comparison.json").write_text(json.dumps(kept))
    words = checked(report.render([tmp_path])).words
    assert "Training of b on draw 1 went wrong. Class <b> swallowed all." in words
    assert words.count("went wrong") == 2
    assert "a fit, of which training went wrong in 1" in words


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["handful", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as left:
        code = left.code or 0
    return code, capsys.readouterr()


FIT = ("fit", "digits", "--per-class", 2, "--set", "steps=2", "--set", "backbone.base=8")


@pytest.mark.thorough
def test_a_fit_leaves_a_report_with_its_test_score(monkeypatch, capsys, tmp_path):
    out = tmp_path / "run"
    more = ("--precision", "fp32", "--estimate", "none", "--out", out)
    assert command(monkeypatch, capsys, *FIT, *more)[0] == 0
    page = checked((out / "report.html").read_text())
    assert "On the test images it was right for" in page.words
    (out / "report.html").unlink()
    assert command(monkeypatch, capsys, *FIT, *more)[0] == 0
    assert (out / "report.html").exists()
    code, said = command(monkeypatch, capsys, "report", out, "--no-images", "--out", out / "b.html")
    assert (code, said.out) == (0, f"written to {out / 'b.html'}\n")


@pytest.mark.thorough
def test_a_report_that_fails_does_not_lose_the_run(monkeypatch, capsys, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("no paper")

    monkeypatch.setattr(report, "render", broken)
    more = ("--precision", "fp32", "--estimate", "none", "--out", tmp_path / "run")
    code, said = command(monkeypatch, capsys, *FIT, *more)
    assert code == 0
    assert "the report could not be written (no paper)" in said.err
    assert handful.open_run(tmp_path / "run").test is not None


def test_several_runs_need_a_name_for_their_page(monkeypatch, capsys, made):
    code, said = command(monkeypatch, capsys, "report", made.folder, made.folder)
    assert code == 2
    assert "name it with --out" in said.err


def browse(path, profile):
    """The messages of Chromium's console about a page."""
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={profile}", "--virtual-time-budget=1000", "--dump-dom",
         path.as_uri()],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert "</html>" in done.stdout, done.stderr
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium")
def test_a_browser_finds_nothing_to_complain_of_and_nothing_to_load(made, tmp_path):
    path = tmp_path / "report.html"
    report.write_report([made.folder], path)
    assert browse(path, tmp_path / "profile") == []
    path.write_text(path.read_text().replace("<h1>", '<img src="https://example.com/a.png"><h1>'))
    (refused,) = browse(path, tmp_path / "profile")
    assert "Content Security Policy" in refused


def test_the_report_begins_with_how_often_it_is_right(made, copied):
    estimate = {**made.record["estimate"], "n": 40, "accuracy": 0.75, "low": 0.59, "high": 0.87}
    change(copied, estimate={**estimate, "guessing": False})
    html = report.render([copied])
    said = "About 75 % right on new images (59–87 %, nine times in ten)."
    assert html.index("<h1>") < html.index(said) < html.index("<nav>")
    change(copied, estimate={**estimate, "n": 12})
    assert "Above about 59 % right on new images; 12 labels" in report.render([copied])
    change(copied, estimate=None)
    assert "How often it is right is not known." in report.render([copied])


def test_a_saved_run_writes_the_report_that_the_command_leaves(copied, tmp_path):
    report.leave_report(copied)
    left = (copied / "report.html").read_text()
    (copied / "report.html").unlink()
    opened = handful.open_run(copied)
    assert opened.report() == copied / "report.html"
    assert (copied / "report.html").read_text() == left

    bare = opened.report(tmp_path / "bare.html", pictures=False)
    assert "data:image" in left and "data:image" not in bare.read_text()


def test_a_report_replaces_no_file_that_handful_did_not_write(copied, tmp_path):
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    with pytest.raises(HandfulError, match="is not what handful writes there"):
        handful.open_run(copied).report(tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "<p>mine</p>"


def test_a_run_in_no_folder_says_what_a_report_needs(made):
    unsaved = replace(handful.open_run(made.folder), folder=None)
    with pytest.raises(HandfulError, match=r"fit with out=..., or call run.save\(folder\) first"):
        unsaved.report()
