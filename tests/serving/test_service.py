"""The service: what gets in, what comes out, and what it bounds. No model and no clock."""

import asyncio
import io
import json
import socket
import tempfile
import threading

import httpx
import numpy as np
import pytest
from PIL import Image

from handful.errors import HandfulError
from handful.onnx_runtime import Answers
from handful.serving.batching import Batches, Full
from handful.serving.guard import Limits
from handful.serving.serve import check_token
from handful.serving.service import Service, application

HOST = "localhost:8000"


class Model:
    """Answers by the brightness of an image; the distance is that of bright ones."""

    classes = ("dark", "bright")
    about = {
        "handful": "0",
        "input": {"size": 4, "channels": 1, "aspect": "crop"},
        "none_of_these": {"distance": 0.95},
    }

    in_a_pass = 4

    def answer(self, images):
        bright = images.reshape(len(images), -1).mean(axis=1, dtype=np.float32) / 255
        return Answers(np.stack([1 - bright, bright], axis=1), bright)


def picture(level, kind="PNG"):
    with io.BytesIO() as file:
        Image.new("L", (9, 7), level).save(file, kind)
        return file.getvalue()


def asked(*requests, token=None, hosts=frozenset({HOST}), limits=None, **options):
    """The answers to requests (method, path, arguments of httpx), one after the other."""
    service = Service(Model(), None, limits=limits, **options)
    app = application(service, hosts, token)

    async def ask():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            return [await client.request(method, path, **more) for method, path, more in requests]

    try:
        return asyncio.run(ask())
    finally:
        service.close()


def post(**more):
    return "POST", "/predict", more


def test_one_picture_gets_one_prediction():
    (answer,) = asked(post(content=picture(51)))
    (found,) = answer.json()["predictions"]
    assert answer.status_code == 200
    assert found.pop("probabilities") == pytest.approx({"dark": 0.8, "bright": 0.2})
    assert found.pop("confidence") == pytest.approx(0.8)
    assert found == {"file": None, "label": "dark", "abstained": False, "none_of_these": False}


def test_several_pictures_in_a_form_are_answered_in_their_order_and_unreadable_ones_named():
    files = [("a", ("x.png", picture(250))), ("b", ("y.jpg", b"no")), ("c", ("z", picture(0)))]
    (answer,) = asked(post(files=files, data={"note": "ignored"}))
    found = answer.json()["predictions"]
    assert answer.status_code == 200
    assert [one["file"] for one in found] == ["x.png", "y.jpg", "z"]
    assert [one.get("label") for one in found] == ["bright", None, "dark"]
    assert found[1]["error"] == "not an image in a known format"


def test_what_is_unsure_or_unlike_all_images_of_the_run_gets_no_label_if_so_asked():
    unsure, strange = post(content=picture(140)), post(content=picture(255))
    plain = asked(unsure, strange)
    careful = asked(unsure, strange, threshold=0.9, none_of_these=True)
    said = [
        [(one["label"], one["abstained"], one["none_of_these"])
         for answer in answers for one in answer.json()["predictions"]]
        for answers in (plain, careful)
    ]  # fmt: skip
    assert said[0] == [("bright", False, False), ("bright", False, True)]
    assert said[1] == [(None, True, False), (None, False, True)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"hello", 422),
        (picture(9)[:30], 422),
        (picture(9, "JPEG")[:80], 422),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), 422),
        (b"P6 99999999 99999999 255\n", 422),
        (b"BM" + bytes(60), 422),
        (bytes(2**20 + 1), 413),
    ],
)
def test_a_body_that_is_no_picture_is_refused_with_a_reason(body, status):
    (answer,) = asked(post(content=body), limits=Limits(body=2**20))
    assert answer.status_code == status
    said = answer.json()
    assert said.get("error") or said["predictions"][0]["error"]


def test_a_body_longer_than_it_said_is_refused():
    async def endless():
        for _ in range(5):
            yield bytes(2**18)

    (answer,) = asked(post(content=endless()), limits=Limits(body=2**20))
    assert answer.status_code == 413


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", "undefined", "utf-8\0"])
def test_a_form_cannot_choose_how_its_names_are_decoded(charset):
    (answer,) = asked(form(charset))
    assert answer.status_code == 400
    assert "charset" in answer.json()["error"]
    (answer,) = asked(form("UTF-8"))
    assert answer.json()["predictions"][0]["file"] == "\\ud800"


def form(charset):
    head = b'--xx\r\nContent-Disposition: form-data; name="a"; filename="\\ud800"\r\n\r\n'
    kind = f"multipart/form-data; boundary=xx; charset={charset}"
    return post(content=head + picture(9) + b"\r\n--xx--\r\n", headers={"content-type": kind})


def test_bodies_of_all_requests_together_are_bounded_and_their_room_comes_back():
    body = picture(9)
    limits = Limits(held=len(body))
    answers = asked(
        post(content=body), post(content=body), post(content=body + b"0"), limits=limits
    )
    assert [answer.status_code for answer in answers] == [200, 200, 503]
    assert answers[2].headers["retry-after"] == "1"


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "ä"])
def test_a_token_that_no_header_can_carry_is_refused(token):
    with pytest.raises(HandfulError, match="the token is empty, or has"):
        check_token(token)
    check_token(None)
    check_token("s-E_c.r~e+t/=")


def test_no_picture_is_left_where_temporary_files_are(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answers = asked(post(content=picture(9)), post(content=b"nothing"))
    assert [answer.status_code for answer in answers] == [200, 422]
    assert list(tmp_path.iterdir()) == []


def test_a_broken_form_is_refused():
    kind = {"content-type": "multipart/form-data; boundary=x"}
    many = [("f", (f"{n}.png", picture(n))) for n in range(5)]
    answers = asked(
        post(content=b"nothing of a form", headers=kind),
        post(content=b"--x\r\n\r\n--x--", headers=kind),
        post(content=b"", headers={"content-type": "multipart/form-data"}),
        post(files=many),
        limits=Limits(images=4),
    )
    assert [answer.status_code for answer in answers] == [400] * 4


def test_a_request_of_another_site_or_host_is_refused():
    own = {"content": picture(9)}
    answers = asked(
        post(**own, headers={"origin": "http://evil.example"}),
        post(**own, headers={"sec-fetch-site": "cross-site"}),
        post(**own, headers={"host": "evil.example"}),
        post(**own, headers={"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}),
        ("GET", "/predict", {}),
        ("GET", "/nothing", {}),
    )
    assert [answer.status_code for answer in answers] == [403, 403, 421, 200, 405, 404]


def test_with_a_token_only_its_owner_gets_an_answer_and_the_page_opens_for_all():
    own = {"content": picture(9)}
    answers = asked(
        post(**own),
        post(**own, headers={"authorization": "Bearer wrong"}),
        post(**own, headers={"authorization": "Bearer ö".encode()}),
        post(**own, headers={"authorization": "Bearer right"}),
        ("GET", "/metrics", {}),
        ("GET", "/", {}),
        ("GET", "/healthz", {}),
        token="right",
    )
    assert [a.status_code for a in answers] == [401, 401, 401, 200, 401, 200, 200]


def test_every_answer_forbids_scripts_of_others():
    for answer in asked(("GET", "/", {}), ("GET", "/app.js", {}), ("GET", "/no", {}), post()):
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_metrics_count_answers_images_and_seconds():
    *_, metrics = asked(
        post(content=picture(9)), post(content=b"no"), post(content=b""), ("GET", "/metrics", {})
    )
    lines = metrics.text.splitlines()
    for line in (
        'handful_requests_total{status="200"} 1',
        'handful_requests_total{status="422"} 1',
        'handful_requests_total{status="400"} 1',
        "handful_images_total 1",
        "handful_unreadable_images_total 1",
        "handful_request_seconds_count 3",
        'handful_request_seconds_bucket{le="+Inf"} 3',
    ):
        assert line in lines


def test_a_request_that_takes_too_long_is_told_to_come_again():
    class Slow(Model):
        def answer(self, images):
            release.wait()
            return super().answer(images)

    release = threading.Event()
    service = Service(Slow(), None, limits=Limits(seconds=0.01))
    app = application(service, frozenset({HOST}), None)

    async def ask():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            answer = await client.post("/predict", content=picture(9))
        release.set()
        return answer

    answer = asyncio.run(ask())
    service.close()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


def test_more_requests_than_allowed_at_a_time_are_told_to_come_again():
    answer, health = asked(
        post(content=picture(9)), ("GET", "/healthz", {}), limits=Limits(requests=0)
    )
    assert (answer.status_code, health.status_code) == (503, 200)
    assert json.loads(answer.text)["error"].startswith("too many requests")


def level(content):
    """An image (1, 2, 2) of one grey level, or why there is none."""
    return (
        f"no {content.decode()}"
        if content.isalpha()
        else np.full((1, 2, 2), int(content), np.uint8)
    )


def levels(found):
    return [one if isinstance(one, str) else round(one.probabilities[0] * 255) for one in found]


def of_levels(images):
    return Answers(images.reshape(len(images), -1)[:, :2] / 255.0, None)


def test_what_waits_while_a_batch_is_computed_is_the_next_batch():
    sizes, begun, release = [], threading.Event(), threading.Event()

    def answer(images):
        sizes.append(len(images))
        begun.set()
        release.wait()
        return of_levels(images)

    async def ask():
        batches = Batches(level, answer, most_waiting=6, largest=4, threads=2)
        first = asyncio.create_task(batches.ask([b"0"]))
        await asyncio.to_thread(begun.wait)
        others = [asyncio.create_task(batches.ask([str(n).encode()])) for n in range(1, 7)]
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await batches.ask([b"7"])
        others[2].cancel()
        while batches._unread:  # the other thread reads
            await asyncio.sleep(0)
        release.set()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        batches.close()
        return found

    found = asyncio.run(ask())
    assert sizes == [1, 4, 1]  # the one that was cancelled is not computed
    assert isinstance(found[3], asyncio.CancelledError)
    assert levels(sum((one for n, one in enumerate(found) if n != 3), [])) == [0, 1, 2, 4, 5, 6]


def test_images_that_are_read_while_a_batch_is_computed_are_the_next_one():
    sizes, made = [], []

    def answer(images):
        while made[0]._unread:  # the thread that reads goes on meanwhile
            threading.Event().wait(0.001)
        sizes.append(len(images))
        return of_levels(images)

    async def ask():
        batches = Batches(level, answer, most_waiting=99, largest=4, threads=1)
        made.append(batches)
        found = await batches.ask([b"1", b"2", b"x", b"4", b"5", b"6", b"7"])
        counted = (batches.computed, batches.batches, batches.unreadable, batches.waiting)
        batches.close()
        return found, counted

    found, counted = asyncio.run(ask())
    assert levels(found) == [1, 2, "no x", 4, 5, 6, 7]
    assert sum(sizes) == 6 and max(sizes) <= 4 and len(sizes) <= 3
    assert counted == (6, len(sizes), 1, 0)


def test_a_picture_that_takes_long_to_read_delays_no_other_one():
    release = threading.Event()

    def read(content):
        if content == b"9":
            release.wait()
        return level(content)

    async def ask():
        batches = Batches(read, of_levels, most_waiting=9, largest=4, threads=2)
        slow = asyncio.create_task(batches.ask([b"9"]))
        await asyncio.sleep(0)
        quick = await batches.ask([b"1"])
        assert not slow.done()
        release.set()
        found = quick + await slow
        batches.close()
        return found

    assert levels(asyncio.run(ask())) == [1, 9]


def test_a_fault_of_the_model_or_of_reading_is_told_to_each_who_asked_and_the_next_batch_goes_on():
    def answer(images):
        if images.max() > 100:
            raise RuntimeError("broken")
        return of_levels(images)

    async def ask():
        batches = Batches(level, answer, most_waiting=9, largest=4, threads=2)
        with pytest.raises(RuntimeError, match="broken"):
            await batches.ask([b"200", b"200"])
        with pytest.raises(ValueError, match="invalid literal"):
            await batches.ask([b"?"])
        found = await batches.ask([b"3"])
        batches.close()
        return found

    assert levels(asyncio.run(ask())) == [3]


def test_the_socket_is_one_whose_small_answers_do_not_wait():
    from handful.sockets import listening

    with listening("127.0.0.1", 0, 2048, "give another") as found:
        assert found.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY for these alone
