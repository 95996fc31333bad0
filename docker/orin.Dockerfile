# trtq on Jetson Orin, without torch: build, bench, layers, diff, report. See docs/docker.md and docs/jetson.md.
# Not built yet: written without a Docker engine or a Jetson at hand. Parsed and linted (tests/docs/test_docker.py), and
# the steps that need no server of NVIDIA's run in an Ubuntu of the same release (benchmarks/docker_steps.py).
#
#   docker build --file docker/orin.Dockerfile --build-arg JETPACK=6.2 --tag trtq:orin .
#   docker run --rm --runtime nvidia --group-add video --group-add "$(stat --format %g /dev/dri/renderD128)" \
#     --user "$(id -u):$(id -g)" --volume "$PWD:/workspace" trtq:orin doctor
#
# One stage a JetPack; BuildKit pulls the chosen one's base image alone (Docker before 23: set DOCKER_BUILDKIT=1).

ARG JETPACK=6.2

# JetPack 5.1 to 5.1.5: TensorRT 8.5.2, CUDA 11.4, Ubuntu 20.04. TensorRT's Python module is for JetPack's Python 3.8,
# trtq needs 3.10: it comes from an image of equal glibc and OpenSSL, and trtexec builds and times the engines.
FROM python:3.10-slim-bullseye AS python
FROM nvcr.io/nvidia/l4t-tensorrt:r8.5.2-runtime AS jetpack-5.1
COPY --from=python /usr/local /usr/local
ENV TRTQ_L4T=r35.4 \
    TRTQ_TENSORRT=8.5.2-1+cuda11.4 \
    TRTQ_PACKAGES="libnvinfer-bin libssl1.1 libffi7 libsqlite3-0 libexpat1" \
    TRTQ_PYTHON=/usr/local/bin/python3.10 \
    TRTQ_CUDA_PYTHON= \
    TRTQ_NEEDS="--require trtexec"

# JetPack 6.0: TensorRT 8.6.2, CUDA 12.2, Ubuntu 22.04.
FROM nvcr.io/nvidia/l4t-tensorrt:r8.6.2-runtime AS jetpack-6.0
ENV TRTQ_L4T=r36.3 \
    TRTQ_TENSORRT=8.6.2.3-1+cuda12.2 \
    TRTQ_PACKAGES="libnvinfer-bin python3-libnvinfer python3-venv" \
    TRTQ_PYTHON=/usr/bin/python3.10 \
    TRTQ_CUDA_PYTHON=cuda-python==12.2.1 \
    TRTQ_NEEDS="--require trt --require cuda-python"

# JetPack 6.1 to 6.2.2: TensorRT 10.3.0, CUDA 12.6, Ubuntu 22.04.
FROM nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime AS jetpack-6.2
ENV TRTQ_L4T=r36.4 \
    TRTQ_TENSORRT=10.3.0.30-1+cuda12.5 \
    TRTQ_PACKAGES="libnvinfer-bin python3-libnvinfer python3-venv" \
    TRTQ_PYTHON=/usr/bin/python3.10 \
    TRTQ_CUDA_PYTHON=cuda-python==12.6.2.post1 \
    TRTQ_NEEDS="--require trt --require cuda-python"

# JetPack 7.2: TensorRT 10.16.2, CUDA 13.2, Ubuntu 24.04. No l4t-tensorrt image is known for it.
FROM nvcr.io/nvidia/cuda:13.2.1-runtime-ubuntu24.04 AS jetpack-7.2
ENV TRTQ_L4T=r39.2 \
    TRTQ_TENSORRT=10.16.2.10-1+cuda13.2 \
    TRTQ_PACKAGES="libnvinfer-bin python3-libnvinfer python3-venv" \
    TRTQ_PYTHON=/usr/bin/python3.12 \
    TRTQ_CUDA_PYTHON=cuda-python==13.2.0 \
    TRTQ_NEEDS="--require trt --require cuda-python"

# hadolint ignore=DL3006
FROM jetpack-${JETPACK}

# `--build-arg EXTRAS=ort` adds ONNX Runtime, which measures accuracy on the CPU.
ARG EXTRAS=

# TensorRT's programs and Python module in JetPack's own version, where the base image lacks them. The virtual
# environment sees that module, and keeps everything else of trtq's apart from the image.
COPY docker/jetpack-packages.sh /opt/
RUN ldconfig \
    && /opt/jetpack-packages.sh graphviz \
    && "${TRTQ_PYTHON}" -m venv --system-site-packages /opt/trtq \
    && useradd --create-home --uid 10001 trtq

ENV PATH=/opt/trtq/bin:/usr/src/tensorrt/bin:${PATH} \
    PIP_CONSTRAINT= \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

# Dependencies first: this layer stays as it is while only trtq's own code changes.
WORKDIR /opt/trtq/source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY trtq/__init__.py trtq/
RUN pip install --constraint constraints.txt \
    ".${EXTRAS:+[${EXTRAS}]}" ${TRTQ_CUDA_PYTHON:+"${TRTQ_CUDA_PYTHON}"}

COPY trtq trtq
RUN pip install --constraint constraints.txt --no-deps --force-reinstall .

USER 10001
WORKDIR /workspace
# A container without its GPU is not healthy: give it one with `--runtime nvidia` and its device files' groups.
HEALTHCHECK --interval=5m --timeout=1m --start-period=1m CMD ["sh", "-c", "trtq doctor $TRTQ_NEEDS"]
ENTRYPOINT ["trtq"]
CMD ["--help"]
