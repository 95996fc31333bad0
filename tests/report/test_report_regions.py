"""Regions: modules read off names of every exporter, frames of a useful size."""

from pathlib import Path

import pytest

from trtq.layers import read
from trtq.layers.graph import Layer, LayerGraph, Tensor
from trtq.layers.signals import signals
from trtq.report.flow import flow
from trtq.report.regions import LARGEST_LAYERS, regions
from trtq.report.scopes import layer_path, module_path

ENGINES = Path(__file__).resolve().parents[3] / "shared" / "data" / "engines"
needs_engines = pytest.mark.skipif(not ENGINES.is_dir(), reason="the folder with real engine files is not here")


def conv(
    name: str, reads: str, writes: str, nodes: tuple[str, ...] | None = None, kind: str = "CaskConvolution"
) -> Layer:
    tensors = [Tensor(one, (1, 8, 4, 4), "int8") for one in (reads, writes)]
    return Layer(name, kind, tuple(tensors[:1]), tuple(tensors[1:]), (name,) if nodes is None else nodes)


def titled(layers: tuple[Layer, ...]) -> dict[str, tuple[int, ...]]:
    graph = LayerGraph("measured", "test", layers, signals(layers, "measured"))
    return {region.title: region.layers for region in regions(graph, flow(graph))}


@pytest.mark.parametrize(
    ("node", "modules"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("layer1.0.conv1.weight", "layer1.0.conv1"),
        ("backbone.elan1.cv2.conv/Conv", "backbone.elan1.cv2.conv"),
        ("/model.4/m.0/cv1/conv/Conv", "model.4.m.0.cv1.conv"),
        ("/model/model.4/cv1/conv/Conv", "model.4.cv1.conv"),
        ("/conv1/_input_quantizer/QuantizeLinear", "conv1"),
        ("backbone.stem1.conv.input_quantizer/QuantizeLinear", "backbone.stem1.conv"),
        ("PWN(PWN(/act/Sigmoid), /act/Mul)", "act"),
        ("PWN(Clip_16)", ""),
        ("{ForeignNode[/a/b/Add.../c/d/Mul]}", ""),
        ("Conv_84", ""),
        ("(Unnamed Layer* 3) [Convolution]", ""),
        ("/Concat_6", ""),
        ("", ""),
        ("///", ""),
    ],
)
def test_modules_are_read_off_names(node: str, modules: str) -> None:
    assert ".".join(module_path(node)) == modules


def test_a_fused_layer_lies_where_most_of_its_nodes_do() -> None:
    nodes = ("a.cv1/Conv", "a.cv1/LeakyRelu", "a/Concat", "a.cv4/Conv", "b.input_quantizer/QuantizeLinear")
    assert layer_path(conv("kgen", "x", "y", nodes)) == ("a",)
    assert layer_path(conv("kgen", "x", "y", ("a.cv1/Conv", "a.cv1/Mul", "b.q.input_quantizer/QuantizeLinear"))) == (
        "a",
        "cv1",
    )


@needs_engines
def test_engines_of_tensorrt_8_are_divided_by_the_weights_modules() -> None:
    resnet = read(ENGINES / "trt8-resnet18-a100" / "qat.graph.json")
    found = regions(resnet, flow(resnet))
    assert [region.title for region in found] == ["layer1", "layer2", "layer3", "layer4"]
    for region in found:
        named = [resnet.layers[index].name for index in region.layers if "weight" in resnet.layers[index].name]
        assert named
        assert all(name.startswith(f"{region.title}.") for name in named)
    assert resnet.layers[found[1].layers[0]].kind == "Reformat QDQ", "a conversion belongs to who reads it"


@needs_engines
def test_a_module_that_is_too_large_gives_way_to_those_in_it() -> None:
    graph = read(ENGINES / "trt8-mobilenetv2-titanrtx" / "qat.graph.json")
    found = regions(graph, flow(graph))
    assert {region.title for region in found} >= {f"features.{number}" for number in range(2, 18)}
    assert max(len(region.layers) for region in found) <= LARGEST_LAYERS


def test_names_without_scopes_have_no_regions() -> None:
    assert titled(tuple(conv(f"Conv_{place}", f"t{place}", f"t{place + 1}") for place in range(30))) == {}


def test_one_module_alone_has_no_frame() -> None:
    assert titled(tuple(conv(f"/net/Conv_{place}", f"t{place}", f"t{place + 1}") for place in range(30))) == {}


def test_parts_of_a_module_that_lie_apart_have_a_frame_each() -> None:
    names = [*["/head/Conv"] * 3, *["/neck/Conv"] * 3, *["/head/Conv"] * 3]
    layers = tuple(conv(f"{name}_{place}", f"t{place}", f"t{place + 1}") for place, name in enumerate(names))
    graph = LayerGraph("measured", "test", layers, signals(layers, "measured"))
    assert [(region.title, region.layers) for region in regions(graph, flow(graph))] == [
        ("head", (0, 1, 2)),
        ("neck", (3, 4, 5)),
        ("head", (6, 7, 8)),
    ]


def test_what_lies_wholly_inside_a_module_belongs_there() -> None:
    pool = [conv(f"/pool/MaxPool_{place}", f"t{place}", f"t{place + 1}", kind="CaskPooling") for place in (3, 4, 5)]
    spp = [conv(f"/spp/Conv_{place}", f"t{place}", f"t{place + 1}") for place in (0, 1, 2, 6, 7, 8)]
    rest = [conv(f"/neck/Conv_{place}", f"t{place}", f"t{place + 1}") for place in (9, 10, 11)]
    found = titled((*spp[:3], *pool, *spp[3:], *rest))
    assert found == {"spp": tuple(range(9)), "neck": (9, 10, 11)}
