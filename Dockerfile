# trtq on x86-64 with an NVIDIA GPU. See docs/docker.md.
# Not built yet: written without a Docker engine at hand. Parsed and linted (tests/docs/test_docker.py), and its steps run
# in an Ubuntu of the same release (benchmarks/docker_steps.py).
#
#   docker build --tag trtq .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" --volume "$PWD:/workspace" trtq --help

# 25.12 holds TensorRT 10.14.1, CUDA 13 and Python 3.12, and wants a driver of R580 or newer.
ARG TENSORRT_TAG=25.12
FROM nvcr.io/nvidia/tensorrt:${TENSORRT_TAG}-py3

# `--build-arg EXTRAS=torch,ort,rtx` adds TensorRT-RTX: do so if you accept NVIDIA's licence for it.
ARG EXTRAS=torch,ort
# CUDA for Python, in the version of the base image's CUDA. torch wants 13.
ARG CUDA=13

# A virtual environment keeps the pinned versions apart from the base image's, and sees the image's TensorRT; Ubuntu
# drops old package versions, so apt's are not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends graphviz python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/trtq \
    && useradd --create-home --uid 10001 trtq

# NVIDIA's Python images may set PIP_CONSTRAINT; ours are the constraints here. torch asks for the user's name, which a
# user given by `docker run --user` does not have.
ENV LOGNAME=trtq \
    PATH=/opt/trtq/bin:${PATH} \
    PIP_CONSTRAINT= \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

# Dependencies first: torch is gigabytes, and this layer stays as it is while only trtq's own code changes.
WORKDIR /opt/trtq/source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY trtq/__init__.py trtq/
RUN pip install --constraint constraints.txt ".[${EXTRAS}]" "cuda-bindings==${CUDA}.*"

COPY trtq trtq
RUN pip install --constraint constraints.txt --no-deps --force-reinstall .

USER 10001
WORKDIR /workspace
# A container without its GPU is not healthy: give it one with `--gpus all`.
HEALTHCHECK --interval=5m --timeout=1m --start-period=1m \
    CMD ["trtq", "doctor", "--require", "trt", "--require", "cuda-python"]
ENTRYPOINT ["trtq"]
CMD ["--help"]
