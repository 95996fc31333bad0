from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtq.errors import ConfigError, ModelError, OutputError
from trtq.ptq import CalibrationCache, cache_text, header_version, parse_cache, read_cache, write_cache
from trtq.ptq.cache import LIMIT_MIB

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "engines" / "calibration"
HEADER = "TRT-8601-EntropyCalibration2\n"
NAMES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1).filter(str.strip)
SCALES = st.floats(0, width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True).filter(
    lambda scale: math.copysign(1, scale) > 0
)


def bits(scale: float | np.float32) -> bytes:
    return struct.pack(">f", scale)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published cache is not beside the checkout")
def test_a_published_cache_comes_back_byte_for_byte(tmp_path: Path) -> None:
    path = SHARED / "yolov5s-qat2ptq-trt8.6.cache"
    cache = read_cache(path)
    assert (cache.version, cache.algorithm, len(cache.scales), cache.unnamed) == (
        "8600",
        "EntropyCalibration2",
        197,
        (),
    )
    assert bits(cache.scales["images"]) == bytes.fromhex("3c00f9f4")
    write_cache(tmp_path / "again.cache", cache)
    assert (tmp_path / "again.cache").read_bytes() == path.read_bytes()


@given(scales=st.dictionaries(NAMES, SCALES, max_size=8))
def test_any_names_and_any_float32_bits_come_back(scales: dict[str, float]) -> None:
    cache = CalibrationCache("100300", "EntropyCalibration2", scales)
    again = parse_cache(cache_text(cache))
    assert (again.version, again.algorithm, list(again.scales)) == ("100300", "EntropyCalibration2", list(scales))
    for name, scale in scales.items():
        assert bits(again.scales[name]) == bits(scale)
        assert bits(np.float32(again.amax[name] / 127)) == bits(scale)


def test_odd_but_usable_text_is_read() -> None:
    text = (
        "TRT-8XXX-MinMaxCalibration\r\nnet: a b:0 : 3c00f9f4\r\n\n(Unnamed Layer* 8) [Constant]_output: 3C00F9F4\n"
        "dead: 0\nnet: a b:0 : 3c00f9f4"
    )
    cache = parse_cache(text)
    assert list(cache.scales) == ["net: a b:0 ", "(Unnamed Layer* 8) [Constant]_output", "dead"]
    assert cache.unnamed == ("(Unnamed Layer* 8) [Constant]_output",)
    assert cache.scales["dead"] == 0
    assert parse_cache(HEADER).scales == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "first line is ''"),
        (b"\x00\x01\xfe\xff" * 50, "not text"),
        (b"\x08\x07" * 50, "first line"),
        (b"1\nimages: 3c00f9f4\n", "first line is '1'"),
        (b"TRT-8601-EntropyCalibration2 images: 3c00f9f4", "first line"),
        (HEADER.encode() + b"images 3c00f9f4\n", "line 2 is 'images 3c00f9f4'"),
        (HEADER.encode() + b"images: 3c00f9f4f\n", "line 2"),
        (HEADER.encode() + b"images: \n", "line 2"),
        (HEADER.encode() + b": 3c00f9f4\n", "line 2"),
        (HEADER.encode() + b"images: 0.0078\n", "line 2"),
        (HEADER.encode() + b"a: 3c00f9f4\nb: 7fc00000\n", "line 3: tensor 'b' has the scale nan"),
        (HEADER.encode() + b"b: 7f800000\n", "scale inf"),
        (HEADER.encode() + b"b: bc00f9f4\n", "scale -0.0"),
        (HEADER.encode() + b"b: 80000000\n", "scale -0.0"),
        (HEADER.encode() + b"a: 3c00f9f4\na: 3c00f9f5\n", "line 3 gives 'a' another scale"),
        (HEADER.encode() + b"x" * 10**6, "line 2 is 'xxxxx"),
    ],
    ids=map(str, range(16)),
)
def test_what_is_no_cache_is_refused_in_one_sentence(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "ptq.cache"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_cache(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and words in message
    assert "\n" not in message and len(message) < 400


@given(text=st.text(st.sampled_from("TRT-8601-EntropyCalibration2\n\r :abcdef0123456789\x00é"), max_size=200))
def test_no_text_does_worse_than_a_refusal(text: str) -> None:
    for one in (text, HEADER + text):
        try:
            cache = parse_cache(one)
        except ModelError:
            continue
        assert all(math.isfinite(scale) and scale >= 0 for scale in cache.scales.values())
        assert parse_cache(cache_text(cache)) == cache


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_cache(tmp_path / "absent.cache")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ModelError, match="is not a file"):
            read_cache(path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_cache(tmp_path / ("x" * 300))
    with (tmp_path / "huge.cache").open("wb") as file:
        file.truncate((LIMIT_MIB << 20) + 1)
    with pytest.raises(ModelError, match="64 MiB"):
        read_cache(tmp_path / "huge.cache")
    with pytest.raises(OutputError):
        write_cache(tmp_path / "huge.cache" / "x", CalibrationCache("8601", "EntropyCalibration2", {}))


@pytest.mark.parametrize(
    ("scales", "words"),
    [({"": 1.0}, "one line"), ({"a\nb": 1.0}, "one line"), ({"a": -1.0}, "scale -1.0"), ({"a": 1e300}, "float32")],
)
def test_what_a_cache_cannot_hold_is_not_written(scales: dict[str, float], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        write_cache(tmp_path / "ptq.cache", CalibrationCache("8601", "EntropyCalibration2", scales))
    assert not list(tmp_path.iterdir())


def test_headers_spell_releases_as_tensorrt_does() -> None:
    spelled = {"8.5.2": "8502", "8.6.1.6": "8601", "8.6": "8600", "10.3.0": "100300", "10.16.1.11": "101601"}
    assert {release: header_version(release) for release in spelled} == spelled
    for release in ("11.0.0", "6.0"):
        with pytest.raises(ConfigError, match="no calibration cache"):
            header_version(release)
    for release in ("8", "eight", "8.6.1-rc", ""):
        with pytest.raises(ConfigError, match="such as 8"):
            header_version(release)
