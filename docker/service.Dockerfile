# The service: docker build -f docker/service.Dockerfile [--build-arg VARIANT=cuda] -t jigsight .
#
# Nothing is installed whose hash a lock in docker/ does not name (PyTorch's CPU build: see docs/deployment.md).
# The image holds no compiler but numba's, for loops of our own, and no package index, its files belong to root, and it
# runs as user 10001, which writes to /data and /tmp alone: it is meant for a read-only root file system.

# Both are one and the same Python. `docker buildx imagetools inspect python:3.11-slim-bookworm` tells the newest.
ARG PYTHON=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3
# cpu | cuda. A driver on the host is all that cuda needs beside: CUDA's libraries come as wheels.
ARG VARIANT=cpu

FROM ${PYTHON} AS tools
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

FROM tools AS wheel
COPY docker/build.lock docker/build.lock
RUN python -m pip install --require-hashes -r docker/build.lock
COPY pyproject.toml README.md LICENSE jigsight.py ./
COPY models models
COPY training training
COPY service service
RUN python -m pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels .

FROM tools AS libraries
# Without pip inside: the environment cannot install anything later. What it holds is compiled to bytecode here,
# since nothing can be written next to it at run time.
RUN python -m venv --without-pip /opt/jigsight
COPY docker/*.lock docker/torch-cpu.txt docker/

FROM libraries AS libraries-cpu
RUN python -m pip --python /opt/jigsight/bin/python install --no-deps \
    --index-url https://download.pytorch.org/whl/cpu -r docker/torch-cpu.txt \
    && python -m pip --python /opt/jigsight/bin/python install --require-hashes --only-binary :all: \
    -r docker/service-cpu.lock

FROM libraries AS libraries-cuda
RUN python -m pip --python /opt/jigsight/bin/python install --require-hashes --only-binary :all: \
    -r docker/service.lock

# hadolint ignore=DL3006
FROM libraries-${VARIANT} AS environment
COPY --from=wheel /wheels /wheels
RUN python -m pip --python /opt/jigsight/bin/python install --no-deps --no-index /wheels/*.whl \
    && python -m pip --python /opt/jigsight/bin/python check

FROM ${PYTHON} AS service
ARG VARIANT
ARG REVISION=unknown
LABEL org.opencontainers.image.title="JigSight" \
      org.opencontainers.image.description="Visual inspection of industrial parts over HTTP: pass or fail, and where the defect is" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}" \
      jigsight.variant="${VARIANT}"
RUN groupadd --gid 10001 jigsight \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin jigsight \
    && install --directory --owner 10001 --group 10001 --mode 0750 /data \
    && install --directory /artifacts
COPY --from=environment /opt/jigsight /opt/jigsight
# numba's threads want OpenMP under this name, and there should be no second one beside torch's.
RUN ln -s /opt/jigsight/lib/python3.11/site-packages/torch/lib/libgomp.so.1 /usr/lib/libgomp.so.1.0.0 \
    && /opt/jigsight/bin/python -c "import torch, numba.np.ufunc.omppool"
ENV PATH=/opt/jigsight/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    JIGSIGHT_ARTIFACTS=/artifacts \
    JIGSIGHT_DATA=/data \
    JIGSIGHT_HOST=0.0.0.0 \
    JIGSIGHT_PORT=8000 \
    JIGSIGHT_LOG_FORMAT=json \
    NUMBA_CACHE_DIR=/data/compiled
WORKDIR /data
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Whether the process is of any use. A database that is away for a while is no reason to start it anew.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as http; http.urlopen(f\"http://127.0.0.1:{os.environ['JIGSIGHT_PORT']}/v2/health/live\", timeout=4)"]
ENTRYPOINT ["jigsight"]
CMD ["serve"]
