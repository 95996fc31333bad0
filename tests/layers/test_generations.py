"""One name for one value: buffers that are written again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trtq.layers.generations import rename_generations
from trtq.layers.graph import Layer, Tensor


def step(name: str, reads: list[tuple[str, tuple[int, ...]]], writes: list[tuple[str, tuple[int, ...]]]) -> Layer:
    tensors = [tuple(Tensor(one, dims, "int8") for one, dims in side) for side in (reads, writes)]
    return Layer(name, "kgen", tensors[0], tensors[1])


def names(layers: tuple[Layer, ...]) -> list[tuple[list[str], list[str]]]:
    return [([one.name for one in layer.inputs], [one.name for one in layer.outputs]) for layer in layers]


def test_a_loop_that_reuses_a_name() -> None:
    small = (1, 8)
    rows = [step("body", [("state", small)], [("state", small)]) for _ in range(3)]
    renamed, reused = rename_generations([*rows, step("end", [("state", small)], [("y", small)])])
    assert names(renamed) == [
        (["state"], ["state#2"]),
        (["state#2"], ["state#3"]),
        (["state#3"], ["state#4"]),
        (["state#4"], ["y"]),
    ]
    assert reused == 1


def test_slices_of_an_elided_concat_stay_one_tensor() -> None:
    half, whole = (1, 4, 2), (1, 8, 2)
    rows = [step("a", [], [("c", half)]), step("b", [], [("c", half)]), step("r", [("c", whole)], [("y", whole)])]
    renamed, reused = rename_generations(rows)
    assert names(renamed) == names(tuple(rows))
    assert reused == 0


def test_slices_stay_one_tensor_when_one_is_read_in_between() -> None:
    rows = [
        step("a", [], [("c", (1, 4))]),
        step("side", [("c", (1, 4))], [("z", (1, 4))]),
        step("b", [], [("c", (1, 3))]),
        step("r", [("c", (1, 7))], [("y", (1, 7))]),
    ]
    renamed, reused = rename_generations(rows)
    assert names(renamed) == names(tuple(rows))
    assert reused == 0


def test_a_buffer_reused_for_another_shape() -> None:
    rows = [
        step("a", [], [("b", (1, 10))]),
        step("r", [("b", (1, 10))], [("y", (1, 10))]),
        step("c", [], [("b", (1, 1))]),
        step("s", [("b", (1, 1))], [("z", (1, 1))]),
    ]
    renamed, _ = rename_generations(rows)
    assert names(renamed)[2:] == [([], ["b#2"]), (["b#2"], ["z"])]


@given(
    st.lists(st.tuples(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc"), unique=True)), max_size=12)
)
def test_what_is_read_was_written_before_or_came_in(steps: list[tuple[list[str], list[str]]]) -> None:
    rows = [step("s", [(one, (1, 2)) for one in reads], [(one, (1, 2)) for one in writes]) for reads, writes in steps]
    renamed, _ = rename_generations(rows)
    read: set[str] = set()
    for layer in renamed:
        read.update(tensor.name for tensor in layer.inputs)
        # Nothing is written to a value that was read already.
        assert read.isdisjoint(tensor.name for tensor in layer.outputs)
    plain = [
        [[tensor.name.partition("#")[0] for tensor in side] for side in (one.inputs, one.outputs)] for one in renamed
    ]
    assert plain == [[reads, writes] for reads, writes in steps]
