# Planner and connectors. deploy/images/build makes it; the base comes by digest: --build-arg BASE=NAME@sha256:...
# The base needs Python 3.11 or newer as `python3`, with venv. Written for amd64 and arm64.
ARG BASE
FROM ${BASE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
# `fetched` is there when deploy/images/build was given wheels; otherwise they are fetched here, by hash.
COPY deploy/images/wheels deploy/images/wheel.lock deploy/images/planner.lock fetched* ./
# Tools stay in this stage: what ships has no pip.
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/build PIP_NO_CACHE_DIR=1 PIP_QUIET=1 PIP_NO_DEPS=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN [ -f planner.txt ] || env --unset=PIP_NO_INDEX ./wheels /build planner \
 && python3 -m venv tools && tools/bin/python -m pip install -r wheel.txt \
 && python3 -m venv --without-pip /opt/wattscale \
 && tools/bin/python -m pip --python /opt/wattscale/bin/python install -r planner.txt
COPY . source
RUN tools/bin/python -m pip wheel --no-build-isolation --wheel-dir made ./source/bus_schemas ./source \
 && tools/bin/python -m pip --python /opt/wattscale/bin/python install made/*.whl

FROM ${BASE}
ARG BASE
ARG VERSION
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.title="wattscale-planner" \
      org.opencontainers.image.description="Wattscale's planner and connectors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=build /opt/wattscale /opt/wattscale
# Nothing is written to the image: it runs with a read-only root. Modules are compiled already.
ENV PATH=/opt/wattscale/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
WORKDIR /
EXPOSE 9091 9102
ENTRYPOINT ["/opt/wattscale/bin/wattscale"]
CMD ["planner", "run", "-c", "/etc/wattscale/planner.yaml"]
