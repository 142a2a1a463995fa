# docker build --build-arg VARIANT=cpu --build-arg TORCH_INDEX=$TORCH_INDEX --tag longspan:0.1.0-cpu .
# docker build --build-arg VARIANT=cuda --tag longspan:0.1.0-cuda .
ARG VARIANT=cpu

FROM python:3.11.14-slim-bookworm AS python

# Wheels alone, of the versions that constraints.txt pins, the build's own tools too.
FROM python AS tools
ENV PIP_CONSTRAINT=/build/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ONLY_BINARY=:all:
WORKDIR /build
COPY constraints.txt ./
RUN python -m venv /opt/longspan

# torch first, from one index: a second one beside PyPI could put its own packages before PyPI's.
# TORCH_INDEX is an index of torch's builds for CPUs; without one the image has PyPI's build, which
# runs on CPUs too and takes gigabytes for CUDA's libraries.
FROM tools AS torch-cpu
ARG TORCH_INDEX=
RUN /opt/longspan/bin/pip install ${TORCH_INDEX:+--no-deps --index-url "$TORCH_INDEX"} torch

# PyPI's build for Linux is the one for CUDA, and brings CUDA's libraries along.
FROM tools AS torch-cuda
RUN /opt/longspan/bin/pip install torch

FROM torch-${VARIANT} AS build
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY server server
COPY workers workers
COPY clients clients
RUN /opt/longspan/bin/pip install '.[server,embedded]'

FROM python AS server
RUN groupadd --gid 10001 longspan \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp longspan \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/longspan
COPY --from=build /opt/longspan /opt/longspan
# The driver's libraries for computing; which GPUs there are, the cluster says.
# The server listens like this only with TLS and authentication, or with LONGSPAN_INSECURE=true.
ENV PATH=/opt/longspan/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LONGSPAN_LISTEN=0.0.0.0:50051 \
    LONGSPAN_DATA_DIR=/var/lib/longspan
USER 10001:10001
EXPOSE 50051
# As process 1 it needs no init: it starts its workers itself, and waits for each.
ENTRYPOINT ["longspan-server"]
