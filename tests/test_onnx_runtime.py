"""Models that `handful export` did not write are refused with a reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from handful import exporting
from handful.errors import HandfulError
from handful.onnx_runtime import OnnxModel, images_in_a_pass

TOLD = {
    "handful": "0",
    "classes": ["a", "b"],
    "input": {"size": 160},
    "abstentions": [],
    "none_of_these": None,
}


def written(path, about):
    """A model (N, 1, 1, 2) uint8 → the same numbers as float32, with these metadata."""
    shape = ["N", 1, 1, 2]
    graph = helper.make_graph(
        [helper.make_node("Cast", ["images"], ["as float"], to=TensorProto.FLOAT),
         helper.make_node("Flatten", ["as float"], ["probabilities"])],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
    onnx.save(model, path)
    return path


def test_images_are_answered_in_batches_and_none_at_all_too(tmp_path):
    model = OnnxModel(written(tmp_path / "a.onnx", TOLD))
    images = np.arange(10, dtype=np.uint8).reshape(5, 1, 1, 2)
    for batch in (1, 2, 64):
        found = model.answer(images, batch)
        assert found.probabilities.tolist() == images.reshape(5, 2).tolist()
        assert found.distances is None
    assert model.answer(images).probabilities.tolist() == images.reshape(5, 2).tolist()
    assert model.answer(images[:0]).probabilities.shape == (0, 2)


@pytest.mark.parametrize("starts", ["import handful.onnx_runtime", "import predict"])
def test_onnx_runtime_neither_writes_nor_sends_records_of_its_use(starts, tmp_path):
    """It keeps what it sends in a database below the home folder."""
    quiet_anyway = ("CI", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    scripts = Path(exporting.__file__).parent / "folder"
    paths = os.pathsep.join(filter(None, [str(scripts), os.environ.get("PYTHONPATH")]))
    environment = {k: v for k, v in os.environ.items() if k not in quiet_anyway}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    program = f"{starts}, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("size", "images"), [(8, 64), (32, 64), (96, 8), (160, 4), (224, 2), (512, 1)]
)
def test_images_in_a_pass_are_as_many_as_a_processor_holds_in_its_cache(size, images):
    assert images_in_a_pass(size) == images


def test_a_file_that_is_no_model_of_handful_is_refused(tmp_path):
    (tmp_path / "b.onnx").write_bytes(b"nothing")
    others = [
        tmp_path / "b.onnx",
        tmp_path / "missing.onnx",
        written(tmp_path / "c.onnx", {}),
        written(tmp_path / "d.onnx", {**TOLD, "classes": 3}),
        written(tmp_path / "e.onnx", {k: v for k, v in TOLD.items() if k != "none_of_these"}),
    ]
    for path in others:
        with pytest.raises(HandfulError, match="is no model that `handful export` wrote"):
            OnnxModel(path)
