# ddpm_jax on NVIDIA GPUs. From the root of a checkout:
#   docker build --file=docker/cuda.Dockerfile --tag=ddpm-jax:cuda .
#   docker run --gpus=all --volume="$PWD/runs:/work/runs" ddpm-jax:cuda --config=digits
# The host needs the NVIDIA driver and its container toolkit; the
# CUDA libraries come with JAX's wheels.
FROM python:3.12-slim-bookworm

# bash runs the launchers; tini hands SIGTERM on, at which a run saves and ends.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash tini \
    && rm -rf /var/lib/apt/lists/*

COPY . /source
# hadolint ignore=DL3042
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-compile "/source[cuda12,tensorboard,text,video]" \
    && rm -rf /source

WORKDIR /work
ENV PYTHONUNBUFFERED=1 MPLBACKEND=Agg
ENTRYPOINT ["tini", "--", "ddpm-jax"]
CMD ["--help"]
