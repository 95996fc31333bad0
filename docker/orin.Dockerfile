# trtq on Jetson Orin with JetPack 6.2 (L4T r36.4, TensorRT 10.3, CUDA 12.6, Python 3.10). See docs/docker.md.
# Not built yet: written without a Docker engine or a Jetson at hand, then parsed and linted (tests/docs/test_docker.py).
#
#   docker build --file docker/orin.Dockerfile --tag trtq:orin .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/workspace" trtq:orin --help
#
# No torch: it lints, unifies, reads, compares, draws and reports, and measures the accuracy of ONNX files on the CPU.
# It does not build TensorRT engines: trtq has no back end for classic TensorRT yet, and TensorRT-RTX has none for Orin.

ARG L4T_TENSORRT_TAG=r10.3.0-runtime
FROM nvcr.io/nvidia/l4t-tensorrt:${L4T_TENSORRT_TAG}

# Ubuntu drops old package versions, so apt's are not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends graphviz python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/trtq \
    && useradd --create-home --uid 10001 trtq

ENV PATH=/opt/trtq/bin:${PATH} \
    PIP_CONSTRAINT= \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

# Dependencies first: this layer stays as it is while only trtq's own code changes.
WORKDIR /opt/trtq/source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY trtq/__init__.py trtq/
RUN pip install --constraint constraints.txt ".[ort]"

COPY trtq trtq
RUN pip install --constraint constraints.txt --no-deps --force-reinstall .

USER 10001
WORKDIR /workspace
ENTRYPOINT ["trtq"]
CMD ["--help"]
