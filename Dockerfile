# syntax=docker/dockerfile:1
# `gfp`; and with --target comfyui a ComfyUI that has the pack, for machines without a display.
#
#   docker build -t gfp .                                               on a CPU
#   docker build -t gfp --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .    with CUDA
#   docker run --rm --network none -v "$PWD:/in:ro" -v "$PWD/restored:/out" gfp restore /in/photo.jpg -o /out
#
# Weights that are fetched go to the volume /weights. The container needs no network without them.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-trixie AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/gfp
ENV PATH=/opt/gfp/bin:$PATH PIP_NO_CACHE_DIR=1
# Which versions fit is pyproject.toml's to say.
# hadolint ignore=DL3013
RUN pip install 'torch>=2.6' torchvision --index-url "$TORCH_INDEX"
COPY pyproject.toml MANIFEST.in README.md CHANGELOG.md LICENSE NOTICE /source/
COPY gfp_core /source/gfp_core
# hadolint ignore=DL3013
RUN pip install "/source[heif,tiff]" && gfp setup

FROM python:${PYTHON}-slim-trixie AS runtime
RUN useradd --create-home --uid 1000 gfp \
    && install -d -o gfp -g gfp /weights /out
COPY --from=build /opt/gfp /opt/gfp
ENV PATH=/opt/gfp/bin:$PATH \
    GFP_WEIGHTS_DIR=/weights \
    PYTHONUNBUFFERED=1
VOLUME /weights

# ComfyUI's sources, 0.3.75 or newer, are a build context of their own (compose.yml names one).
FROM runtime AS comfyui
# hadolint ignore=DL3022
COPY --from=comfyui-source --chown=gfp:gfp . /opt/comfyui
RUN pip install --no-cache-dir -r /opt/comfyui/requirements.txt
COPY --chown=gfp:gfp . /opt/comfyui/custom_nodes/gfp-face-restoration
WORKDIR /opt/comfyui
RUN install -d -o gfp -g gfp input output user temp
USER 1000
EXPOSE 8188
HEALTHCHECK --start-period=2m --interval=30s --timeout=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8188/system_stats', timeout=5)"]
ENTRYPOINT ["python", "main.py", "--disable-auto-launch", "--listen", "0.0.0.0"]
CMD ["--cpu"]

FROM runtime AS gfp
USER 1000
WORKDIR /out
HEALTHCHECK --interval=5m --timeout=1m CMD ["gfp", "weights", "where", "lite"]
ENTRYPOINT ["gfp"]
CMD ["--help"]
