# The command `ensemble` in a container; docs/cluster.md shows how it is used. Built by `make image`, or by
#   docker build --build-arg TORCH=cpu --tag ensemble:cpu .
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS installed
# cuda: as it comes from PyPI, with its libraries; cpu: from torch's own index, without any
ARG TORCH=cuda
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
ENV PATH=/opt/ensemble/bin:$PATH
WORKDIR /src
RUN python -m venv /opt/ensemble
COPY constraints.txt ./
RUN if [ "$TORCH" = cpu ]; \
    then pip install --constraint constraints.txt --no-deps --index-url "$TORCH_CPU_INDEX" torch; \
    else pip install --constraint constraints.txt torch; fi
COPY pyproject.toml README.md LICENSE ./
COPY ensemble ensemble
COPY registry registry
COPY recipes recipes
RUN pip install --constraint constraints.txt '.[cluster,s3]'

FROM python:${PYTHON}-slim-bookworm
ARG TORCH=cuda
# A GPU's networks are compiled where there is a compiler.
# hadolint ignore=DL3008
RUN if [ "$TORCH" = cuda ]; \
    then apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
      && rm -rf /var/lib/apt/lists/*; fi
COPY --from=installed /opt/ensemble /opt/ensemble
# Caches of libraries lie where anybody may write, whoever the container runs as.
ENV PATH=/opt/ensemble/bin:$PATH HOME=/tmp USER=ensemble PYTHONUNBUFFERED=1
RUN useradd --uid 1000 --no-create-home ensemble
USER 1000
WORKDIR /work
ENTRYPOINT ["ensemble"]
CMD ["--help"]
