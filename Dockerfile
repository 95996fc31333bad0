# trtq on x86-64 with an NVIDIA GPU. See docs/docker.md.
# Not built yet: written without a Docker engine at hand, then parsed and linted (tests/docs/test_docker.py).
#
#   docker build --tag trtq .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/workspace" trtq --help

# 25.06 holds TensorRT 10.11, CUDA 12.9 and Python 3.12. Any tag whose Python is 3.11 or 3.12 will do.
ARG TENSORRT_TAG=25.06
FROM nvcr.io/nvidia/tensorrt:${TENSORRT_TAG}-py3

# `--build-arg EXTRAS=torch,ort,rtx` adds TensorRT-RTX: do so if you accept NVIDIA's licence for it.
ARG EXTRAS=torch,ort

# A virtual environment keeps the pinned versions apart from the base image's; Ubuntu drops old package versions, so
# apt's are not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends graphviz python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/trtq \
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
RUN pip install --constraint constraints.txt ".[${EXTRAS}]"

COPY trtq trtq
RUN pip install --constraint constraints.txt --no-deps --force-reinstall .

USER 10001
WORKDIR /workspace
ENTRYPOINT ["trtq"]
CMD ["--help"]
