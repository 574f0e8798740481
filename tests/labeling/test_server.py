"""The page from outside: what it answers, and whom it refuses."""

import io
import json
import time
from pathlib import Path

import pytest
from PIL import Image

from handful.labeling import guard
from labeling.pages import ORIGIN, OWN, Client, folder, label, opened


def status(client: Client, **headers: str) -> int:
    """The status of a write with these headers in place of a browser's."""
    return client.send(
        "POST", "/api/undo", content=b'{"id": "1"}', headers={"content-type": "application/json"}
        | headers,
    ).status_code  # fmt: skip


def test_a_label_is_on_disk_when_it_is_answered(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        assert label(client, 3, "cat")["labels"] == 1
        journal = (tmp_path / "labels.csv.journal").read_text()
        assert '"003.png"' in journal and '"cat"' in journal


def test_without_the_token_nothing_is_answered(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page, enter=False)
        for path in ("/", "/app.js", "/image/0/200", "/?token=", "/?token=wrong"):
            assert client.get(path).status_code == 403, path
        assert client.post("/api/state", {}).status_code == 403


def test_the_token_is_good_for_one_entry(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        assert client.get("/").status_code == 200
        own, client.cookies = client.cookies, {}
        replayed = client.get(f"/?token={client.guard.token}")
        assert replayed.status_code == 403 and "set-cookie" not in replayed.headers
        client.cookies = own  # the browser that was let in may reload the address
        assert client.get(f"/?token={client.guard.token}").status_code == 200


def test_the_cookie_is_kept_from_scripts_and_other_sites(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page, enter=False)
        answer = client.get(f"/?token={client.guard.token}")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert client.guard.token not in cookie and client.guard.token not in answer.text


def test_a_made_up_cookie_is_refused(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        for value in ("", "x", client.guard.token):
            client.cookies = {client.guard.cookie: value}
            assert client.get("/").status_code == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8123", "127.0.0.1", "127.0.0.1:80", "127.0.0.1:8123.evil",
     "localhost.evil:8123", ""],
)  # fmt: skip
def test_a_rebound_host_name_is_refused(tmp_path: Path, host: str) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        assert client.get("/", host=host).status_code == 421
        assert client.post("/api/state", {}, host=host).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
        {"origin": "http://127.0.0.1:9999", "sec-fetch-site": "same-site"},
        {"origin": "http://localhost:8123"},  # another name of this machine is another origin
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {},
    ],
)
def test_a_write_from_another_page_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        assert status(Client(page), **headers) == 403


def test_a_write_of_the_page_itself_is_taken(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        assert status(client, **{"sec-fetch-site": "same-origin"}) == 200
        assert status(client, origin=ORIGIN) == 200  # a browser without Sec-Fetch-Site
        assert status(client, origin=ORIGIN, **{"sec-fetch-site": "same-origin"}) == 200


def test_another_page_cannot_embed_images(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        crossed = client.get("/image/0/200", **{"sec-fetch-site": "cross-site"})
        assert crossed.status_code == 403
        assert client.get("/image/0/200", **{"sec-fetch-site": "same-origin"}).status_code == 200


def test_every_answer_has_the_policy_and_none_is_shared(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        answers = [client.get("/"), client.get("/image/0/200"), client.get("/nothing"),
                   client.get("/", host="evil"), client.post("/api/state", {})]  # fmt: skip
        for answer in answers:
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert not [name for name in answer.headers if name.startswith("access-control")]


def test_other_methods_and_forms_are_refused(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        assert client.send("OPTIONS", "/api/undo", headers=OWN).status_code == 405
        assert client.send("PUT", "/api/undo", headers=OWN).status_code == 405
        form = {**OWN, "content-type": "application/x-www-form-urlencoded"}
        assert client.send("POST", "/api/undo", content="id=1", headers=form).status_code == 415
        assert client.send("GET", "/api/undo", headers=OWN).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/image/../../etc/passwd", "/image/%2e%2e%2fphotos/200", "/image/-1/200", "/image/12/200",
     "/image/0/99999", "/image/0/0", "/image/99999999999999999999/200", "/image/0x1/200",
     "/image/000.png", "/page/index.html", "/..%2f..%2flabels.csv", "//etc/passwd",
     "/image/1e3/200"],
)  # fmt: skip
def test_no_path_leads_out_and_images_have_numbers_only(tmp_path: Path, path: str) -> None:
    with opened(folder(tmp_path / "photos", 12)) as page:
        assert Client(page).get(path).status_code == 404


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nonsense", b'{"id": 1}', b'{"id": "1", "items": {}}', b"\xff",
     b'{"id": "1", "items": [1]}', b'{"id": "1", "items": [{"number": 99}]}',
     b'{"id": "1", "items": [{"number": 1, "kind": "label", "label": "", "seen": "blind"}]}',
     b'{"id": "1", "items": [{"number": 1, "kind": "evil", "seen": "blind"}]}',
     b'{"id": "1", "items": [{"number": 1, "kind": "none", "seen": "random"}]}',
     b"[" * 100_000],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_changes_nothing(tmp_path: Path, body: bytes) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        answer = client.send("POST", "/api/answer", content=body, headers=OWN)
        assert answer.status_code == 400, answer.text
        assert page.session.marks.of == {}


def test_a_body_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        content = b" " * (guard.MOST_BODY + 1)
        answer = Client(page).send("POST", "/api/undo", content=content, headers=OWN)
        assert answer.status_code == 413


def test_a_class_named_like_markup_stays_text(tmp_path: Path) -> None:
    name = '<img src=x onerror="alert(1)">'
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        answer = client.post(
            "/api/answer",
            {"id": "1", "items": [{"number": 1, "kind": "label", "label": name, "seen": "blind"}]},
        )
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["classes"] == [{"name": name, "labels": 1}]
        scripts = [client.get(f"/{file}").text for file in ("app.js", "dom.js", "one.js",
                   "tiles.js", "panel.js", "done.js", "api.js")]  # fmt: skip
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert not any(way in script for script in scripts), way


def test_pictures_are_encoded_anew_without_exif(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 1)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "secret camera", 6
    image = Image.new("RGB", (300, 100), "red")
    image.save(source / "photo.jpg", exif=exif)
    with opened(source) as page:
        number = page.session.number["photo.jpg"]
        answer = Client(page).get(f"/image/{number}/1000")
        assert b"secret" not in answer.content and b"Exif" not in answer.content
        shown = Image.open(io.BytesIO(answer.content))
        assert shown.size == (100, 300)  # upright
        assert not shown.getexif()


def test_a_huge_picture_is_refused_without_decoding(tmp_path: Path) -> None:
    from bombs import png

    source = folder(tmp_path / "photos", 3)
    (source / "huge.png").write_bytes(png(20_000, 20_000, "L")())
    with opened(source) as page:
        number = page.session.number["huge.png"]
        answer = Client(page).get(f"/image/{number}/1000")
        assert answer.status_code == 422
        assert "million pixels" in answer.json()["error"]
        assert number not in {item["number"] for item in page.session.next("t", [], 4)}


def test_a_file_that_is_no_picture_is_left_out(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 3)
    (source / "evil.png").write_text("<svg onload=alert(1)>")
    with opened(source) as page:
        answer = Client(page).get(f"/image/{page.session.number['evil.png']}/200")
        assert answer.status_code == 422 and "svg" not in answer.text


def test_undo_gives_the_image_back(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        client = Client(page)
        label(client, 3, "cat")
        answer = client.act("/api/undo", id="u")
        assert answer["labels"] == 0 and answer["shown"][0]["number"] == 3


def test_a_page_of_tiles_is_one_act(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        client = Client(page)
        tiles = [{"number": n, "kind": "label", "label": "cat", "seen": "page"} for n in range(5)]
        out = [{"number": 7, "label": "cat"}]
        assert client.act("/api/confirm", id="1", items=tiles, out=out)["labels"] == 5
        assert client.act("/api/undo", id="2")["labels"] == 0


def test_the_target_is_kept(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos")
    with opened(source) as page:
        client = Client(page)
        assert client.post("/api/target", {"value": 95}).status_code == 400
        assert client.act("/api/target", value=0.95)["settings"] == {"target": 0.95}
    with opened(source) as page:
        assert Client(page).act("/api/state")["settings"] == {"target": 0.95}


def test_a_file_name_that_is_no_text_can_be_shown(tmp_path: Path) -> None:
    import os

    source = folder(tmp_path / "photos", 1)
    os.rename(os.fsencode(source / "000.png"), os.fsencode(source) + b"/b\xe4r.png")
    with opened(source) as page:
        client = Client(page)
        item = client.act("/api/next", tab="t", have=[], count=1)["items"][0]
        assert item["name"] == "b?r.png"
        label(client, item["number"], "熊")
    with opened(source) as page:
        assert list(page.session.marks.labeled().values()) == ["熊"]


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from handful.labeling import journal

    def full(file: object, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        monkeypatch.setattr(journal, "_write_all", full)
        item = {"number": 1, "kind": "unsure", "seen": "blind"}
        answer = client.post("/api/answer", {"id": "1", "items": [item]})
        assert answer.status_code == 507 and "No space left" in answer.json()["error"]
        monkeypatch.undo()
        assert client.post("/api/answer", {"id": "1", "items": [item]}).status_code == 200


def test_bins_show_answers_but_not_the_random_sample(tmp_path: Path) -> None:
    source = folder(tmp_path / "photos", 30)
    with opened(source) as page:
        run = tmp_path / "run"
        run.mkdir()
        lines = [f"{name},{'cat' if n % 2 else 'dog'},0.{n + 10}"
                 for n, name in enumerate(page.session.names)]  # fmt: skip
        (run / "predictions.csv").write_text("\n".join(["file,label,confidence", *lines]))
        found = Client(page).act("/api/bins", label="cat")
        assert found["bins"] == [{"label": "cat", "images": 15}, {"label": "dog", "images": 15}]
        shown = {tile["number"] for tile in found["tiles"]}
        assert shown == {n for n in range(30) if n % 2} - page.session.sample


def test_a_fit_is_started_with_the_label_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    started = []

    class Started:
        stdout = io.StringIO("done\n")

        def __init__(self, words: list[str], **how: object) -> None:
            started.append(words)

        def poll(self) -> None:
            return None

        def terminate(self) -> None:
            started.append(["terminated"])

    monkeypatch.setattr(subprocess, "Popen", Started)
    source = folder(tmp_path / "photos")
    with opened(source) as page:
        client = Client(page)
        label(client, 1, "cat")
        assert client.act("/api/fit", budget="3m")["running"]
        assert client.post("/api/fit", {"budget": "3m"}).status_code == 400
        assert client.post("/api/fit", {"budget": "; rm -rf /"}).status_code == 400
    words = started[0][3:]
    assert words == ["fit", str(source), "--labels", str(tmp_path / "labels.csv"),
                     "--out", str(tmp_path / "run"), "--budget", "3m"]  # fmt: skip
    assert "cat" in (tmp_path / "labels.csv").read_text()
    assert started[-1] == ["terminated"]


def test_answers_are_plain_json(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        state = Client(page).post("/api/state", {"size": 48})
        assert json.loads(state.content)["images"] == 12
        assert state.content.isascii()


def a_run(run: Path) -> None:
    run.mkdir()
    (run / "run.json").write_text("{}")
    (run / "report.html").write_text("<style>p{color:red}</style><p id=p>It is right</p>")
    (run / "predictions.csv").write_text("file,label,confidence\n")
    (run / "other.html").write_text("<script>evil()</script>")


def test_the_report_is_shown_without_scripts_and_its_files_are_downloads(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        assert client.get("/report/").status_code == 404
        a_run(tmp_path / "run")
        shown = client.get("/report/")
        assert shown.status_code == 200 and "It is right" in shown.text
        policy = shown.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
        assert "script" not in policy and shown.headers["x-content-type-options"] == "nosniff"
        table = client.get("/report/predictions.csv")
        assert table.text.startswith("file,label")
        assert table.headers["content-disposition"].startswith("attachment")
        assert "unsafe" not in table.headers["content-security-policy"]
        for name in ("other.html", "../labels.csv", "%2e%2e%2flabels.csv", "", "none.csv"):
            path = f"/report/{name}" if name else "/report//predictions.csv"
            assert client.get(path).status_code == 404, name
        assert Client(page, enter=False).get("/report/").status_code == 403
        other = client.get("/report/", **{"sec-fetch-site": "cross-site"})
        assert other.status_code == 403


def fit_that_says(text: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Let a fit be a process that says this and runs until it is stopped; return its settings."""
    import subprocess

    environment: dict[str, str] = {}

    class Started:
        stdout, code = io.StringIO(text), None

        def __init__(self, words: list[str], **how: dict[str, str]) -> None:
            environment.update(how["env"])

        def poll(self) -> int | None:
            return self.code

        def terminate(self) -> None:
            self.code = 143

    monkeypatch.setattr(subprocess, "Popen", Started)
    return environment


def test_what_a_fit_says_is_whole_and_names_the_button(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = ", ".join(f"class {n}" for n in range(100))
    lines = [f"classes: {classes}.", *(f"line {n}" for n in range(20)), "Ctrl-C keeps the best one"]
    environment = fit_that_says("\n".join(lines), monkeypatch)
    with opened(folder(tmp_path / "photos")) as page:
        client = Client(page)
        client.act("/api/fit", budget="3m")
        said: list[str] = []
        for _ in range(100):
            said = client.act("/api/state")["fit"]["lines"]
            if len(said) == 1 + len(lines):
                break
            time.sleep(0.02)
        assert said[0].startswith("handful fit ") and said[1:-1] == lines[:-1]
        assert said[-1] == "Stop keeps the best one"
        assert int(environment["COLUMNS"]) > 1_000  # no line is broken in between
        stopped = client.act("/api/stop")
        assert not stopped["failed"] and stopped["stopped"]


def test_the_page_proposes_the_fit_that_the_screen_proposes(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos")) as page:
        a_run(tmp_path / "run")
        fit = Client(page).act("/api/state")["fit"]
        assert fit["report"] == str(tmp_path / "run" / "report.html")
        assert fit["commands"][-1].endswith(f"--after {tmp_path}/run --out {tmp_path}/run-2")
        assert not any("--overwrite" in command for command in fit["commands"])
