# Two stages on one base: the virtual environment is made where pip is, and used where it is not.
# BASE: any glibc image with Python 3.11 or newer as `python3`, its venv module, and useradd (Debian 12 and later).
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS builder
WORKDIR /build
COPY requirements/build.txt requirements/run.txt requirements/
# Only what the lock files name, by hash, and nothing of it compiled here.
RUN python3 -m venv tools \
    && tools/bin/pip install --no-cache-dir --only-binary=:all: --require-hashes -r requirements/build.txt \
    && python3 -m venv --without-pip /opt/venv \
    && tools/bin/pip --python /opt/venv/bin/python install --no-cache-dir --only-binary=:all: --require-hashes \
        -r requirements/run.txt
# A compiler for our own few files of C (packaging/compile_steps.py). Where none can be had the image works without.
RUN command -v cc >/dev/null \
    || { apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=10 update \
         && apt-get install -qq -y --no-install-recommends gcc libc6-dev >/dev/null; } \
    || echo "no C compiler here: commits and large mailboxes will be somewhat slower"
COPY pyproject.toml README.md LICENSE ./
COPY packaging/compile_steps.py packaging/compile_steps.py
COPY mailserver mailserver
RUN tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index --wheel-dir wheels . \
    && tools/bin/pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --no-index wheels/*.whl

FROM ${BASE}
RUN useradd --uid 5000 --user-group --no-create-home --home-dir /var/lib/mailserver --shell /usr/sbin/nologin mailserver \
    && install -d -o mailserver -g mailserver -m 0750 /var/lib/mailserver
COPY --from=builder /opt/venv /opt/venv
COPY packaging/docker/config.toml /etc/mailserver/config.toml
# Fails the build, not the start, when the base lacks a library or the two stages differ.
RUN ["/opt/venv/bin/python", "-c", "import mailserver.serve"]
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    MAILSERVER_CONFIG=/etc/mailserver/config.toml \
    PYTHONDONTWRITEBYTECODE=1
USER 5000:5000
WORKDIR /var/lib/mailserver
VOLUME /var/lib/mailserver
EXPOSE 25 110
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["mailserver", "health"]
ENTRYPOINT ["mailserver"]
CMD ["serve"]
