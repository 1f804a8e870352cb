#!/bin/sh
# opencv loads libGL and glib, mediapipe (a test's oracle) libEGL and libGLESv2. Desktop systems have them,
# slim images don't: bring them where apt-get and the rights to use it are there, else say what to do.
missing=""
for pair in libEGL.so.1:libegl1 libGLESv2.so.2:libgles2 libGL.so.1:libgl1 libglib-2.0.so.0:libglib2.0-0; do
  library=${pair%%:*} package=${pair##*:}
  ldconfig -p 2>/dev/null | grep -q "$library" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "Missing system libraries. On Debian or Ubuntu: apt-get install$missing" >&2
exit 0
