from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.qdq.qdq_graphs import Network
from trtq import qdq
from trtq.errors import ModelError


def small() -> onnx.ModelProto:
    network = Network()
    network.input("x")
    network.conv("x", 0.1)
    return network.proto()


def refused(file: Path, words: str) -> None:
    with pytest.raises(ModelError, match=words) as error:
        qdq.load(file)
    message = str(error.value)
    assert message.startswith(str(file)) and "\n" not in message and "Traceback" not in message


def test_missing_folder_empty_and_text_files_are_refused_with_a_sentence(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "no such file")
    refused(tmp_path, "cannot be read")
    for name, content in (("empty.onnx", b""), ("text.onnx", b"hello, world\n" * 50), ("text.json", b"{not json")):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "is not an ONNX file|holds no network")
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(0).bytes(4096))
    refused(tmp_path / "noise.onnx", "is not an ONNX file|holds no network")


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = small().SerializeToString()
    file = tmp_path / "cut.onnx"
    for length in (*range(0, len(content), 7), *range(len(content) - 12, len(content))):
        file.write_bytes(content[:length])
        refused(file, "cut short")
    file.write_bytes(content)
    assert len(list(qdq.load(file).graph)) == 4


def external(folder: Path) -> tuple[Path, onnx.ModelProto]:
    file = folder / "net.onnx"
    onnx.save_model(small(), file, save_as_external_data=True, location="net.bin", size_threshold=16)
    return file, onnx.load(file, load_external_data=False)


def test_external_data_that_is_missing_or_short_is_refused(tmp_path: Path) -> None:
    file, _ = external(tmp_path)
    data = tmp_path / "net.bin"
    content = data.read_bytes()
    assert qdq.load(file)
    data.write_bytes(content[:-1])
    refused(file, "shorter than tensor 'w.*' needs")
    data.unlink()
    refused(file, "its weights file 'net.bin' is missing")


def test_external_data_without_a_stated_length_is_measured_too(tmp_path: Path) -> None:
    file, proto = external(tmp_path)
    for tensor in proto.graph.initializer:
        kept = [entry for entry in tensor.external_data if entry.key != "length"]
        del tensor.external_data[:]
        tensor.external_data.extend(kept)
    file.write_bytes(proto.SerializeToString())
    assert qdq.load(file)
    data = tmp_path / "net.bin"
    data.write_bytes(data.read_bytes()[:-1])
    refused(file, "shorter than tensor 'w.*' needs")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_external_data_that_leaves_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(1000))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    file, proto = external(folder)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    file.write_bytes(proto.SerializeToString())
    refused(file, "points outside the model's folder")


def test_a_constant_nodes_external_data_is_held_to_the_same(tmp_path: Path) -> None:
    proto = small()
    tensor = onnx.TensorProto(name="c", data_type=onnx.TensorProto.FLOAT, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["c"], value=tensor))
    file = tmp_path / "net.onnx"
    file.write_bytes(proto.SerializeToString())
    refused(file, "points outside the model's folder")
