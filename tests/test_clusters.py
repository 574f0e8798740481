"""Clusters: what is no cluster is said at once; jobs on a real one of two workers of one CPU."""

import os
import signal
import socket
import sys
import time

import pytest

from handful import HandfulError, clusters
from handful.clusters import Cluster, Job, check_address, cluster
from handful.cores import cores
from lazy_imports import assert_imported_late_and_only_in


@pytest.mark.parametrize(
    "address",
    ["", "dask", "ray:/head:10001", "ray://", "http://head:10001", "head:6379", "ray://head:99999"],
)
def test_what_is_no_cluster_is_refused(address):
    with pytest.raises(HandfulError, match="--on ray is this machine"):
        check_address(address)


def test_without_ray_the_extra_is_named(monkeypatch, handful, tmp_path):
    monkeypatch.setattr(clusters, "find_spec", lambda name: None)
    words = ("predict", tmp_path, "digits", "--on", "ray", "--out", tmp_path / "x.csv")
    status, _, err = handful(*words)
    assert status == 2
    assert "which is not installed here: pip install 'handful[ray]'" in err


def test_a_folder_named_ray_is_not_ray(monkeypatch, tmp_path):
    (tmp_path / "ray").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with pytest.raises(HandfulError, match="not installed"):
        clusters.check_installed()


@pytest.fixture
def free():
    """The address of a port where nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    return f"127.0.0.1:{port}"


def test_an_address_where_nothing_listens_is_said_before_ray_is_asked(free, monkeypatch):
    pytest.importorskip("ray")
    with pytest.raises(HandfulError, match=f"nothing answers at ray://{free} .*ray start --head"):
        with cluster(f"ray://{free}"):
            pass
    monkeypatch.setenv("RAY_ADDRESS", free)
    with pytest.raises(HandfulError, match=f"nothing answers at {free}"):
        with cluster("ray"):
            pass


@pytest.mark.parametrize(
    "address, said",
    [
        ("ray", "no Ray cluster on this machine: timed out. Where the machine has much"),
        ("ray://127.0.0.1:10001", "no Ray cluster ray://127.0.0.1:10001: timed out. Check"),
    ],
)
def test_a_cluster_that_does_not_start_is_told(monkeypatch, address, said):
    class Ray:
        __version__ = "2"

        def init(**how):
            raise Exception("timed out.\nMore")  # as Ray does where its processes are late

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(clusters, "_check_listening", lambda address: None)
    with pytest.raises(HandfulError, match=said):
        clusters._connect(Ray, address)


def test_ray_is_imported_in_one_place_and_only_when_asked_for():
    assert_imported_late_and_only_in("clusters.py", "ray")


@pytest.mark.parametrize(
    "words, said",
    [
        (("predict", "run", "digits", "--on", "here", "--out", "x.csv"), "is no cluster"),
        (("predict", "run", "digits", "--on", "ray", "--shard", "1/2", "--out", "x"), "--shard"),
        (("predict", "run", "digits", "--on", "ray", "--into", "x"), "not go with --into"),
        (("predict", "run", "digits", "--on", "ray"), "--out predictions.csv"),
        (("embed", "digits", "--on", "ray", "--out", "x.npz", "--budget", "1m"), "--budget needs"),
        (("compare", "digits", "--per-class", "1", "--out", "x", "--on", "there"), "no cluster"),
        (("reproduce", "mnist-cnn", "--on", "there"), "is no cluster"),
    ],
)
def test_what_does_not_go_together_is_said(handful, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clusters, "check_installed", lambda: None)
    status, _, err = handful(*words)
    assert status == 2
    assert said in " ".join(err.split())


def test_jobs_are_handed_over_as_others_finish():
    """Few arguments wait at a time, and messages come with the results."""
    ray, said = FakeRay(), []
    nodes = Cluster(ray, 1, 0, 2, said.append)
    jobs = (Job(n, f"job {n}", (n,)) for n in range(50))
    found = list(nodes.results(_told, jobs))
    assert found == [(n, n * n) for n in range(50)]
    assert said == [f"job {n}" for n in range(50)]
    assert ray.most == clusters.AHEAD * 2
    assert ray.options_given == {"num_cpus": 1, "num_gpus": 0, "max_retries": 3}


@pytest.mark.parametrize(
    "kind, text, said",
    [
        ("RayTaskError", "No module named 'handful'", "handful is not installed on the cluster"),
        ("RayError", "The worker died.\nMore", r"job 0 was given up: .* 4 times \(The worker died"),
    ],
)
def test_what_the_cluster_lacks_is_told(kind, text, said):
    ray = FakeRay()
    ray.error = getattr(FakeRay.exceptions, kind)(text)
    with pytest.raises(HandfulError, match=said):
        list(Cluster(ray, 1, 0, 2, print).results(_told, [Job(0, "job 0", (0,))]))


def test_a_task_asks_for_no_more_cpus_than_a_machine_with_gpus_has_for_each():
    head = {"Alive": True, "Resources": {"CPU": 32.0}}
    small = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}
    large = {"Alive": True, "Resources": {"CPU": 64.0, "GPU": 4.0}}
    gone = {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 8.0}}
    assert clusters._cpus_beside_a_gpu([head, small, gone]) == 8
    assert clusters._cpus_beside_a_gpu([head, small, large]) == 8
    assert clusters._cpus_beside_a_gpu([large]) == 16
    assert clusters._cpus_beside_a_gpu([{"Alive": True, "Resources": {"CPU": 2, "GPU": 4}}]) == 1


def _told(n, reporter):
    reporter.say(f"job {n}")
    return n * n


class FakeRay:
    """What `Cluster` uses of Ray, in this process."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            pass

    def __init__(self):
        self.waiting, self.most, self.error = {}, 0, None

    def remote(self, function):
        self.function = function
        return self

    def options(self, **given):
        self.options_given = given
        owner = self

        class Task:
            def remote(self, version, folder, threads, function, *arguments):
                key = object()
                owner.waiting[key] = (function, arguments)
                owner.most = max(owner.most, len(owner.waiting))
                return key

        return Task()

    def wait(self, keys, num_returns):
        return keys[:1], keys[1:]

    def get(self, key):
        if self.error is not None:
            raise self.error
        said = []
        function, arguments = self.waiting.pop(key)
        value = function(*arguments, reporter=clusters.Reporter(say=said.append))
        return clusters._Outcome(value, said, "")


# --- on a real cluster


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "cores", lambda: 2)
        patch.delenv("RAY_ADDRESS", raising=False)
        before = signal.getsignal(signal.SIGTERM)
        with cluster("ray") as found:
            assert signal.getsignal(signal.SIGTERM) is before
            yield found


@pytest.mark.thorough
def test_a_job_has_one_thread_for_its_cpu(nodes):
    def threads(reporter):
        import torch

        return cores(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], os.getcwd()

    (found,) = nodes.results(threads, [Job("a", "job", ())])
    assert found == ("a", (1, 1, "1", os.getcwd()))
    assert nodes.at_once == 2


@pytest.mark.thorough
def test_a_job_has_the_priority_of_the_command(nodes):
    def niceness(reporter):
        return os.getpriority(os.PRIO_PROCESS, 0)

    (found,) = nodes.results(niceness, [Job("a", "job", ())])
    assert found == ("a", os.getpriority(os.PRIO_PROCESS, 0))


@pytest.mark.thorough
def test_a_local_cluster_has_no_dashboard_and_reports_nothing(nodes):
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not nodes.ray._private.worker.global_worker.node.webui_url
    with clusters._settings():
        assert not usage_stats_enabled()
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


@pytest.mark.thorough
def test_an_error_of_the_user_is_told_and_stops_the_rest(nodes):
    def wrong(number, reporter):
        from handful import HandfulError

        reporter.say(f"{number} begins")
        if number == 1:
            raise HandfulError("no folder 'x'")
        time.sleep(600)

    said = []
    with cluster("ray", said.append) as again:
        jobs = [Job(n, f"job {n}", (n,)) for n in range(2)]
        with pytest.raises(HandfulError, match="job 1: no folder 'x'"):
            list(again.results(wrong, jobs))
    assert not again.running and said == ["1 begins"]
    assert nodes.ray.is_initialized()
    assert list(nodes.results(lambda reporter: 5, [Job(0, "job", ())])) == [(0, 5)]


@pytest.mark.thorough
def test_a_fault_of_ours_keeps_its_traceback(nodes):
    def fault(reporter):
        raise KeyError("oops")

    with pytest.raises(KeyError, match="(?s)in _work.*in fault"):
        list(nodes.results(fault, [Job(0, "job", ())]))


@pytest.mark.thorough
def test_a_job_whose_process_dies_each_time_is_given_up(nodes, tmp_path):
    def dies(folder, reporter):
        (folder / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(HandfulError, match="job 7 was given up: its process was lost 4 times"):
        list(nodes.results(dies, [Job(7, "job 7", (tmp_path,))]))
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.thorough
def test_another_version_of_handful_is_told(nodes, monkeypatch):
    monkeypatch.setattr(clusters, "__version__", "0.0.1")
    with pytest.raises(HandfulError, match="and the command 0.0.1; install the same"):
        list(nodes.results(lambda reporter: 1, [Job(0, "job", ())]))
