# siamcal predict on a processor:
#   docker build -t siamcal .
#   docker run --rm --network none -v "$PWD:/data" -u "$(id -u):$(id -g)" siamcal \
#       predict clip.mp4 --reference neutral.jpg -o aus.csv
FROM python:3.13-slim

# The image's own versions: pinned ones are gone from Debian's archive within weeks.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# torch for processors, in the version of constraints.txt, before anything that would bring CUDA's.
COPY constraints.txt /tmp/
RUN pip install --no-cache-dir "$(grep '^torch==' /tmp/constraints.txt)" \
    --index-url https://download.pytorch.org/whl/cpu

COPY . /tmp/siamcal
RUN pip install --no-cache-dir -c /tmp/constraints.txt '/tmp/siamcal[predict]' \
    && rm -rf /tmp/siamcal

# Whoever runs it may have no home there.
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib SIAMCAL_CACHE=/tmp/siamcal-cache
WORKDIR /data
ENTRYPOINT ["siamcal"]
CMD ["--help"]
