# Training: docker build -f docker/training.Dockerfile -t jigsight-training .
#
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" \
#     jigsight-training train --data parts/bracket --category bracket
#
# Built like the service's image, with CUDA (it trains on the CPU where there is none). It writes to /work and /tmp
# alone, and works as any user that may write to /work.

ARG PYTHON=python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

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

FROM tools AS environment
RUN python -m venv --without-pip /opt/jigsight
COPY docker/training.lock docker/training.lock
RUN python -m pip --python /opt/jigsight/bin/python install --require-hashes --only-binary :all: \
    -r docker/training.lock
COPY --from=wheel /wheels /wheels
RUN python -m pip --python /opt/jigsight/bin/python install --no-deps --no-index /wheels/*.whl \
    && python -m pip --python /opt/jigsight/bin/python check

FROM ${PYTHON} AS training
ARG REVISION=unknown
LABEL org.opencontainers.image.title="JigSight training" \
      org.opencontainers.image.description="Trains JigSight's artifacts from pictures of good parts" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 jigsight \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin jigsight \
    && install --directory --owner 10001 --group 10001 --mode 0750 /work
COPY --from=environment /opt/jigsight /opt/jigsight
# numba's threads want OpenMP under this name, and there should be no second one beside torch's.
RUN ln -s /opt/jigsight/lib/python3.11/site-packages/torch/lib/libgomp.so.1 /usr/lib/libgomp.so.1.0.0 \
    && /opt/jigsight/bin/python -c "import torch, numba.np.ufunc.omppool"
ENV PATH=/opt/jigsight/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /work
USER 10001:10001
STOPSIGNAL SIGINT
HEALTHCHECK NONE
ENTRYPOINT ["jigsight"]
CMD ["--help"]
