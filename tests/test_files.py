"""Writing files: through links, into pipes, and only over files that handful wrote."""

import math
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest
import torch

from handful import files, output
from handful.cli.failures import sigterm_as_interrupt, user_message
from handful.errors import HandfulError
from handful.files import beside, is_finite, sole_writer, tidy, write_text
from handful.output import (
    EVALUATION,
    FEATURES,
    FINDINGS,
    PAGE,
    PREDICTIONS,
    new_folder,
    next_folder,
    output_target,
    written,
)
from handful.training.interrupt import graceful_stop

OURS = "file,label,confidence,p(a),p(b)\n1.png,a,0.9,0.9,0.1\n"


def put(path, text):
    with written(path) as whole:
        whole.write_text(text)


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target.csv").write_text(OURS)
    (tmp_path / "link.csv").symlink_to("target.csv")
    put(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "target.csv").read_text() == "new"


def test_a_link_to_nothing_yet_makes_its_target(tmp_path):
    (tmp_path / "link.csv").symlink_to("folder/target.csv")
    assert output_target(tmp_path / "link.csv", PREDICTIONS) == tmp_path / "folder" / "target.csv"
    put(tmp_path / "link.csv", "new")
    assert (tmp_path / "folder" / "target.csv").read_text() == "new"


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a.csv").symlink_to("b.csv")
    (tmp_path / "b.csv").symlink_to("a.csv")
    with pytest.raises(HandfulError, match="leads back to itself"):
        output_target(tmp_path / "a.csv", PREDICTIONS)


def test_a_pipe_gets_the_content_and_stays_a_pipe(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    assert output_target(pipe, PREDICTIONS) == pipe
    put(pipe, OURS)
    reader.join()
    assert read == [OURS]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_an_open_file_is_written_to_by_its_number(tmp_path):
    with open(tmp_path / "shell", "w+") as file:
        file.write("before ")
        file.flush()
        put(output.Path(f"/proc/self/fd/{file.fileno()}"), "new")
        file.seek(0)
        assert file.read() == "before new"


def test_a_run_folder_is_not_written_through_links_or_into_pipes(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "report.html").symlink_to("mine")
    write_text(tmp_path / "report.html", "page")
    assert (tmp_path / "mine").read_text() == "mine"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HandfulError, match="is a pipe or a device"):
        write_text(tmp_path / "pipe", "page")


@pytest.mark.parametrize("kind", [PREDICTIONS, FEATURES, PAGE, FINDINGS, EVALUATION])
@pytest.mark.parametrize("content", [b"\xff\xd8 photo", b"id,price\n1,2\n", b'{"a":1}'])
def test_a_file_of_somebody_else_is_not_replaced(tmp_path, kind, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(HandfulError, match="is not what handful writes there"):
        output_target(path, kind)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["photo.jpg", "scan.TIFF"])
def test_the_name_of_a_picture_is_refused_with_another(tmp_path, name):
    with pytest.raises(HandfulError, match=r"is the name of a picture.*try .*\.csv"):
        output_target(tmp_path / name, PREDICTIONS)


@pytest.mark.parametrize(
    "text", [OURS, "", "\ufeff" + OURS.replace(",", ";"), '"file","label","confidence"\n']
)
def test_predictions_of_before_may_be_replaced(tmp_path, text):
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    assert output_target(tmp_path / "p.csv", PREDICTIONS) == tmp_path / "p.csv"


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(
        HandfulError, match=r"is a folder, and a file is to be written; try .*predictions\.csv"
    ):
        output_target(tmp_path, PREDICTIONS)


def test_predict_refuses_a_photograph_as_out_before_it_opens_the_run(handful, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    status, _, err = handful("predict", tmp_path, tmp_path, "--out", tmp_path / "photo.jpg")
    assert status == 2
    assert "is the name of a picture" in err
    assert (tmp_path / "photo.jpg").read_bytes() == b"\xff\xd8"


def test_data_leaves_a_data_json_of_somebody_else_alone(handful, tmp_path):
    (tmp_path / "data.json").write_text('{"mine": 1}')
    status, _, err = handful("data", "digits", "--no-near", "--out", tmp_path)
    assert status == 2
    assert "data.json exists and is not what handful writes" in err
    assert (tmp_path / "data.json").read_text() == '{"mine": 1}'


def test_flushed_files_are_open_for_writing(tmp_path, monkeypatch):
    """On Windows, fsync fails for a handle that is only open for reading."""
    import fcntl

    real = os.fsync

    def fsync(handle):
        only_reads = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        if only_reads and not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(9, "Bad file descriptor")
        return real(handle)

    monkeypatch.setattr("os.fsync", fsync)
    write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def _held(monkeypatch, times):
    """Let the first renames fail, as if another program had the file open."""
    real, left = os.replace, [times]

    def replace(*given):
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(13, "Access is denied")
        return real(*given)

    monkeypatch.setattr("os.replace", replace)


def test_a_file_that_is_held_for_a_moment_is_replaced_after_it(tmp_path, monkeypatch, windows):
    _held(monkeypatch, 3)
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_file_that_stays_open_elsewhere_is_said_to_be(tmp_path, monkeypatch, windows):
    (tmp_path / "file").write_text("old")
    _held(monkeypatch, 1000)
    with pytest.raises(HandfulError, match="is open in another program"):
        write_text(tmp_path / "file", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize("name", ["CON", "nul.csv", "Com1.csv", "aux .csv"])
def test_names_that_windows_keeps_are_refused_there(tmp_path, windows, name):
    with pytest.raises(HandfulError, match="Windows keeps the name"):
        output_target(tmp_path / name, PREDICTIONS)
    assert output_target(tmp_path / "contents.csv", PREDICTIONS)


def test_a_path_that_windows_does_not_take_is_said_with_its_length(tmp_path, windows):
    path = tmp_path / ("b" * 250)
    with pytest.raises(HandfulError, match="Windows takes 259"), beside(path / "c") as temporary:
        raise FileNotFoundError(2, "No such file", str(temporary))


def test_the_longest_name_of_a_file_can_be_written(tmp_path):
    write_text(tmp_path / ("n" * 251 + ".csv"), "text")
    assert len([*tmp_path.iterdir()]) == 1


def test_only_what_was_left_of_one_file_is_tidied(tmp_path):
    for name in (".a[1].csv.12345678.part", ".a1.csv.12345678.part"):
        (tmp_path / name).touch()
    tidy(tmp_path, "a[1].csv")
    assert [p.name for p in tmp_path.iterdir()] == [".a1.csv.12345678.part"]


def test_a_lock_that_cannot_be_removed_while_it_is_open_is_given_back(tmp_path, monkeypatch):
    real = type(tmp_path).unlink

    def unlink(path, missing_ok=False):
        if path.name == files.LOCK:
            raise PermissionError(13, "Access is denied")
        real(path, missing_ok)

    monkeypatch.setattr("pathlib.Path.unlink", unlink)
    for _ in range(2):  # the second would be refused if the first had kept the lock
        with sole_writer(tmp_path):
            pass
        assert (tmp_path / files.LOCK).exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("Could not determine home directory."), "set HANDFUL_CACHE"),
        (RuntimeError("can't start new thread"), "no more threads"),
        (MemoryError(), "memory that this process may use is not enough"),
        (OSError(12, "Cannot allocate memory"), "memory that this process may use"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "memory that this process may use",
        ),
        (ImportError("libx.so: failed to map segment from shared object"), "memory"),
    ],
)
def test_limits_of_the_machine_are_one_line_that_says_what_to_do(error, words):
    assert words in user_message(error)
    assert "\n" not in user_message(error)


def test_any_other_runtime_error_is_ours():
    assert user_message(RuntimeError("shapes do not match")) is None


def test_no_home_folder_ends_a_command_with_one_line(handful, tmp_path, monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HANDFUL_CACHE")
    monkeypatch.setattr("handful.data.cache.Path.home", home)
    monkeypatch.setattr("handful.data.cache.cache_folder", lambda: home())
    monkeypatch.setattr("handful.data.sources.load", lambda *_, **__: home())
    status, _, err = handful("data", tmp_path)
    assert status == 2
    assert err.strip().splitlines()[-1].startswith("Error: there is no home folder")
    assert "Traceback" not in err


def test_a_termination_is_a_control_c_and_the_handler_of_before_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_as_interrupt() as came:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        assert came
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("interrupt", [signal.SIG_IGN, signal.default_int_handler])
def test_a_termination_lets_training_save_also_where_control_c_is_ignored(interrupt):
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with sigterm_as_interrupt() as came, pytest.raises(KeyboardInterrupt):
            with graceful_stop() as asked_to_stop:
                assert not asked_to_stop()
                os.kill(os.getpid(), signal.SIGTERM)
                assert asked_to_stop()
        assert came
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_a_program_has_set_is_left_to_it():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append(1))
    try:
        with sigterm_as_interrupt() as came:
            os.kill(os.getpid(), signal.SIGTERM)
        assert calls == [1] and not came
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_command_line_loads_torch_only_when_it_is_needed():
    """`handful --help` is quick then, and a lack of memory ends with one line."""
    code = "import sys; sys.modules['torch'] = None; import handful.cli"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "in/new", "empty"):
        with new_folder(tmp_path / name) as folder:
            (folder / "a").write_text("a")
            assert not (tmp_path / name / "a").exists()
        assert (tmp_path / name / "a").read_text() == "a"
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "broken") as folder:
        (folder / "a").write_text("a")
        raise ZeroDivisionError
    assert {path.name for path in tmp_path.iterdir()} == {"new", "in", "empty"}


def test_a_folder_that_got_files_meanwhile_keeps_them_and_gets_no_others(tmp_path):
    with pytest.raises(HandfulError, match="they stay"), new_folder(tmp_path / "new") as folder:
        (folder / "a").write_text("a")
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "mine").write_text("mine")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HandfulError, match="is a file"), new_folder(tmp_path / "file"):
        pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_values_that_are_not_finite_are_found_in_any_type(dtype):
    tensor = torch.ones(2, 3).to(dtype)
    assert is_finite(tensor)
    assert is_finite(tensor[:0])
    for wrong in (math.inf, -math.inf, math.nan) if dtype.is_floating_point else ():
        tensor[1, 2] = wrong
        assert not is_finite(tensor)


def test_values_of_a_type_that_numpy_lacks_are_not_finite():
    assert not is_finite(torch.ones(2, 3).to(torch.float8_e5m2))


def test_a_run_after_another_goes_beside_it(tmp_path):
    assert next_folder(tmp_path / "photos-run") == tmp_path / "photos-run-2"
    (tmp_path / "photos-run-2").mkdir()
    assert next_folder(tmp_path / "photos-run") == tmp_path / "photos-run-3"
    assert next_folder(tmp_path / "photos-run-2") == tmp_path / "photos-run-3"
    assert next_folder(tmp_path / "2026-11") == tmp_path / "2026-12"
