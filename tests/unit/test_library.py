"""`import ml4f`: compiling from Python, and what the result offers."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest

import ml4f
from ml4f.compiler import Compilation, Options, compile_proto
from ml4f.errors import Ml4fError, UnsupportedError, UsageError
from ml4f.machine import Machine
from ml4f.reference import Reference
from ml4f.samples import sample_model

MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"


@pytest.fixture(scope="module")
def cancer() -> Compilation:
    return ml4f.compile(MODELS / "cancer_mlp.onnx")


def test_sources_are_paths_bytes_and_onnx_models(cancer: Compilation) -> None:
    path = MODELS / "cancer_mlp.onnx"
    for source in (str(path), path.read_bytes(), onnx.load(path)):
        again = ml4f.compile(source, name="cancer_mlp", validate=False)
        assert again.binary == cancer.binary
    assert cancer.name == cancer.basename == "cancer_mlp"


def test_keras_bytes_need_no_file() -> None:
    compilation = ml4f.compile((MODELS / "watch_gesture.h5").read_bytes(), validate=False)
    assert (compilation.input_shape, compilation.output_shape) == ((64, 6), (7,))


def test_predict_takes_one_input_or_a_batch(cancer: Compilation) -> None:
    x = np.random.default_rng(0).standard_normal((5, 30)).astype(np.float32)
    reference = Reference(onnx.load(MODELS / "cancer_mlp.onnx"))
    expected = np.stack([reference.run([row[None]])[reference.proto.graph.output[0].name][0] for row in x])
    batch = cancer.predict(x)
    assert batch.shape == (5, 2) and batch.dtype == np.float32
    np.testing.assert_allclose(batch, expected, atol=1e-4)
    one = cancer.predict(x[3])
    assert one.shape == (2,)
    np.testing.assert_array_equal(one, batch[3])
    np.testing.assert_array_equal(cancer.predict(x[3].tolist()), batch[3])
    assert cancer.predict(x[:1]).shape == (1, 2) and cancer.predict(x[:0]).shape == (0, 2)


def test_predict_knows_shapes_with_several_dimensions() -> None:
    compilation = ml4f.compile(sample_model("oneD2"), validate=False)
    x = np.random.default_rng(0).standard_normal((4, 10, 3)).astype(np.float32)
    batch = compilation.predict(x)
    assert batch.shape == (4, 3)
    np.testing.assert_array_equal(compilation.predict(x.reshape(4, 30)), batch)
    np.testing.assert_array_equal(compilation.predict(x[2]), batch[2])
    np.testing.assert_array_equal(compilation.predict(x[2].ravel()), batch[2])
    for wrong in (x.transpose(0, 2, 1), x[0].T, x[:, :5], np.zeros(31), 1.0):
        with pytest.raises(Ml4fError, match=r"the model takes shape \[10, 3\]"):
            compilation.predict(wrong)


def test_binary_and_stats_agree(cancer: Compilation) -> None:
    stats = cancer.stats
    header = Machine(cancer.binary).header
    assert stats.total_bytes == len(cancer.binary) == header.object_bytes
    assert stats.arena_bytes == header.arena_bytes
    assert stats.macs == 624 == sum(layer.macs for layer in stats.layers)
    assert 0 < sum(layer.cycles for layer in stats.layers) <= stats.cycles
    assert stats.weight_bytes >= 650 * 4
    assert stats.as_dict()["layers"][0]["macs"] == stats.layers[0].macs


def test_a_layers_arena_is_part_of_the_models() -> None:
    """Outputs slide over inputs, so that a layer's two tensors take less together than one behind the other."""
    stats = compile_proto(sample_model("tfjsGest"), "tfjsGest", Options(validate=False)).stats
    arenas = [layer.arena_bytes for layer in stats.layers]
    assert max(arenas) == stats.arena_bytes
    first = stats.layers[0]
    elements = [prod(first.input_shape), prod(first.output_shape)]
    assert 4 * max(elements) <= first.arena_bytes < 4 * sum(elements)


def test_ir_at_every_stage(cancer: Compilation) -> None:
    signs = {"import": "nn.dense", "nn": "nn.dense", "loop": "loop.kernel", "thumb": "thumb.func"}
    for stage, sign in signs.items():
        assert sign in cancer.ir(stage)
    assert "schedule" in cancer.ir("loop-choose-schedule")
    assert cancer.ir() == cancer.ir("thumb") != cancer.ir("convert-loop-to-thumb")
    with pytest.raises(UsageError, match="no such stage: machine; there are import, nn, loop, thumb"):
        cancer.ir("machine")


def test_save_writes_the_files_of_the_command_line(cancer: Compilation, tmp_path: Path) -> None:
    paths = cancer.save(tmp_path / "new")
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "new").iterdir())
    assert (tmp_path / "new" / "cancer_mlp.ml4f").read_bytes() == cancer.binary
    assert (tmp_path / "new" / "cancer_mlp.asm").read_text() == cancer.assembly()
    cancer.save_onnx(tmp_path / "kept.onnx")
    assert ml4f.compile(tmp_path / "kept.onnx", validate=False).binary == cancer.binary


def test_evaluation_from_files_and_arrays(cancer: Compilation, tmp_path: Path) -> None:
    evaluation = cancer.evaluate(cancer.read_samples(MODELS / "cancer_mlp.test.json"))
    assert evaluation.samples == 171 and round(evaluation.accuracy or 0, 4) == 0.9766
    x = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    y = cancer.predict(x)
    np.savez(tmp_path / "classes.npz", x=x, y=y.argmax(axis=1))
    np.savez(tmp_path / "values.npz", x=x, y=y + np.array([0.5, -0.25]))
    classes = cancer.evaluate(cancer.read_samples(tmp_path / "classes.npz"))
    assert classes.accuracy == 1 and classes.confusion is not None and classes.confusion.trace() == 20
    values = cancer.evaluate(cancer.read_samples(tmp_path / "values.npz"))
    assert values.mean_absolute_error == pytest.approx(0.375) and values.accuracy is None
    assert values.root_mean_square_error == pytest.approx(0.15625**0.5)
    assert values.text() == "Mean absolute error: 0.375\nRoot mean square error: 0.395285"


def test_independent_labels_and_single_outputs() -> None:
    from ml4f.evaluation import SampleFile, Samples, evaluate

    x = np.array([[0.0], [1.0], [2.0], [3.0]])
    outputs = {0.0: [0.9, 0.8, 0.1], 1.0: [0.2, 0.7, 0.6], 2.0: [0.1, 0.1, 0.1], 3.0: [0.9, 0.9, 0.9]}
    labels = [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]]
    samples = SampleFile(Path("labels"), {"x": x, "y": np.array(labels, float)}).samples((1,), 3)
    assert samples.task == "labels"
    evaluation = evaluate(samples, lambda value: np.array(outputs[float(value[0])]), 3)
    assert (evaluation.accuracy, evaluation.exact) == (pytest.approx(11 / 12), 0.75)
    assert evaluation.text() == "Accuracy: 0.9167\nExact matches: 0.7500"

    single = SampleFile(Path("single"), {"x": x, "y": np.array([0.0, 1, 0, 1])}).samples((1,), 1)
    assert single.task == "classes"
    evaluation = evaluate(single, lambda value: value / 3, 1)
    assert evaluation.text() == "Accuracy: 0.5000\n    1    1\n    1    1"  # 0, 1/3 are no; 2/3, 1 are yes

    soft = SampleFile(Path("soft"), {"x": x, "y": np.array([[0.7, 0.2, 0.1]] * 4)}).samples((1,), 3)
    assert soft.task == "classes" and soft.y.tolist() == [0] * 4
    assert isinstance(soft, Samples)


def test_mistakes_of_the_caller() -> None:
    with pytest.raises(UsageError, match="float17"):
        ml4f.compile(MODELS / "cancer_mlp.onnx", float17=True)
    with pytest.raises(UsageError, match="int"):
        ml4f.compile(12)
    with pytest.raises(Ml4fError, match=r"absent\.h5"):
        ml4f.compile("absent.h5")
    model = sample_model("dense")
    model.graph.node[-1].op_type = "Det"
    del model.graph.node[-1].attribute[:]
    with pytest.raises(UnsupportedError, match="dense_1"):
        ml4f.compile(model)
