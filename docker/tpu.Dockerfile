# ddpm_jax on Cloud TPUs, for Kubernetes and for TPU VMs. From the root of a checkout:
#   docker build --file=docker/tpu.Dockerfile --tag=ddpm-jax:tpu .
#   launch/kubernetes.sh --image=ddpm-jax:tpu --tpu=… --topology=… -- --config=digits …
#   docker run --privileged --net=host --volume=/mnt/runs:/work/runs ddpm-jax:tpu --config=digits
# libtpu comes with JAX's wheels.
FROM python:3.12-slim-bookworm

# bash runs the launchers; tini hands SIGTERM on, at which a run saves and ends.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash tini \
    && rm -rf /var/lib/apt/lists/*

COPY . /source
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-compile "/source[tpu,tensorboard,text,video]" \
    && rm -rf /source

WORKDIR /work
ENV PYTHONUNBUFFERED=1 MPLBACKEND=Agg
ENTRYPOINT ["tini", "--", "ddpm-jax"]
CMD ["--help"]
